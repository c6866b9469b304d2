"""What became of each trial: one file that every process of a sweep appends to. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmpt.config.walk import INVALID, Problems, build
from mmpt.training.files import dumps, writing
from mmpt.untrusted import parse_json

State = Literal["started", "done", "failed", "pruned"]
FOLDER = ".sweeps"  # below run.root; one folder for each time a sweep is started


@dataclass(frozen=True)
class Outcome:
    """One line of the ledger: a trial began, or ended.

    Attributes:
        number: The trial's place in the sweep, from 0.
        overrides: The words that make this trial, such as ``method=smop seed=2``.
        state: ``started``, or how it ended.
        earlier: Whether an earlier command had settled it, so that nothing was trained now.
        resumed: Whether it went on from what an earlier command left.
        seconds: How long this command worked on it.
        directory: The run directory; None where the trial failed before it had one.
        error: Why it failed, in one line.
        log: The file with everything the trial printed; None where that was shown.
        result: Content of result.json.
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

    @classmethod
    def create(cls, root: Path) -> Ledger:
        """Begin a ledger below ``run.root``.

        Raises:
            RunError: The folder can't be written.
        """
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        ledger = cls(root.expanduser().absolute() / FOLDER / name)
        with writing(ledger.folder):
            ledger.folder.mkdir(parents=True, exist_ok=True)
            ledger.path.touch()
        return ledger

    def add(self, outcome: Outcome) -> None:
        """Append one line, whole even where several processes append.

        Raises:
            RunError: The line can't be written.
        """
        line = dumps(dataclasses.asdict(outcome)).encode("utf-8") + b"\n"
        with writing(self.path), self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(line)
            file.flush()

    def read(self, skip: int = 0) -> list[Outcome]:
        """Read the lines after the first ``skip`` bytes-complete ones; a line cut short by a crash is left out."""
        try:
            lines = self.path.read_bytes().split(b"\n")[:-1]
        except OSError:
            return []
        found = []
        for line in lines[skip:]:
            try:
                content = parse_json(line)
            except ValueError:  # two halves of lines after a crash
                content = None
            outcome = build(Outcome, content, "", Problems())
            found.append(Outcome(-1, "", "started") if outcome is INVALID else outcome)
        return found

    def ended(self) -> dict[int, Outcome]:
        """Trial number -> how it ended."""
        return {outcome.number: outcome for outcome in self.read() if outcome.state != "started"}
