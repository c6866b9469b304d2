"""What became of each trial: one file that every process of a sweep appends to. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import itertools
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmpt.config.typed_build import INVALID, Problems, build
from mmpt.utils.files import dumps, writing
from mmpt.utils.untrusted import parse_json

State = Literal["started", "busy", "done", "failed", "pruned"]
ENDS = ("done", "failed", "pruned")
FORMAT = 1  # of a line; raise it when a reader of today would misread one
FOLDER = ".sweeps"  # below run.root; one folder for each time a sweep is started


@dataclass(frozen=True)
class Outcome:
    """One line of the ledger: a trial began, or ended.

    Attributes:
        number: The trial's place in the sweep, from 0.
        overrides: The words that make this trial, such as ``method=smop seed=2``.
        state: ``started``, ``busy`` (another process is at this very run: its turn comes again), or how it ended.
        earlier: Whether an earlier command had settled it, so that nothing was trained now.
        resumed: Whether it went on from what an earlier command left.
        seconds: How long this command worked on it.
        directory: The run directory; None where the trial failed before it had one.
        error: Why it failed, in one line.
        log: The file with everything the trial printed; None where that was shown.
        result: Content of result.json.
        where: Machine and process, as ``host:pid``.
        at: When it began, in seconds since 1970.
        format: Of this line.
    """

    number: int
    overrides: str
    state: State
    earlier: bool = False
    resumed: bool = False
    seconds: float = 0.0
    directory: str | None = None
    error: str | None = None
    log: str | None = None
    result: dict[str, Any] | None = None
    where: str = field(default_factory=lambda: f"{platform.node()}:{os.getpid()}")
    at: float = field(default_factory=lambda: round(time.time(), 3))
    format: int = FORMAT

    @property
    def failed(self) -> bool:
        """Whether the trial counts for the exit code."""
        return self.state == "failed"


class Ledger:
    """The file ``trials.jsonl`` in a sweep's folder; processes on several machines may append at once."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is written yet."""
        self.folder = folder
        self.path = folder / "trials.jsonl"
        self._position = 0  # bytes read so far
        self._ended: dict[int, Outcome] = {}

    @classmethod
    def create(cls, root: Path) -> Ledger:
        """Begin a ledger below ``run.root``.

        Raises:
            RunError: The folder can't be written.
        """
        place = root.expanduser().absolute() / FOLDER
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
            for count in itertools.count(1):  # another machine's process may have the number, or an earlier sweep here
                ledger = cls(place / (name if count == 1 else f"{name}-{count}"))
                with contextlib.suppress(FileExistsError):
                    ledger.folder.mkdir()
                    break
            ledger.path.touch()
        return ledger

    def add(self, outcome: Outcome) -> None:
        """Append one line, whole even where several processes append, or one was killed while it did.

        Raises:
            RunError: The line can't be written.
        """
        line = dumps(dataclasses.asdict(outcome)).encode("utf-8") + b"\n"
        with writing(self.path), self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END) and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()

    def news(self) -> list[Outcome]:
        """Read what was appended since this object last read; a line cut short by a crash is left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                text = file.read()
        except OSError:
            return []
        lines = text.split(b"\n")[:-1]
        self._position += sum(len(line) + 1 for line in lines)
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):  # two halves of lines after a crash
                outcome = build(Outcome, parse_json(line), "", Problems())
                if outcome is not INVALID:
                    found.append(outcome)
        self._ended |= {outcome.number: outcome for outcome in found if outcome.state in ENDS}
        return found

    def ended(self) -> dict[int, Outcome]:
        """Trial number -> how it ended."""
        self.news()
        return self._ended


@functools.lru_cache(maxsize=4)
def ledger_of(folder: Path) -> Ledger:
    """The ledger in a folder, one object for all trials of this process: it reads each line once."""
    return Ledger(folder)
