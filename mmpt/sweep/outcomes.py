"""How each trial of a sweep is doing: one file a trial in the sweep's folder, for as long as the sweep runs.

They carry news between the processes of one sweep. The lasting record is the run directories, and
:mod:`mmpt.runs.failures` for trials that have none.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from mmpt.errors import MmptError, RunError
from mmpt.runs.failures import SWEEPS, TrialRecord
from mmpt.runs.record import read_result
from mmpt.runs.result import Result
from mmpt.runs.typed_json import from_json, to_json
from mmpt.utils.files import read_json, write_json, writing

State = Literal["started", "busy", "done", "failed", "pruned"]
ELSEWHERE = ("sweep", "run.", "logger", "hydra")  # words that do not make another trial
_WORD = re.compile(r"""(?:[^\s"']|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|["'])+""")  # quotes hold spaces together
STOP = "stop"  # a file that is there once a trial has failed


class TrialPruned(MmptError):
    """A trial was stopped early because the others were better at the same step."""


@dataclass(frozen=True)
class Outcome:
    """How a trial is doing, or how it ended."""

    number: int = -1  # its index in the sweep, from 0
    state: State = "started"  # busy: another process works on this very run, and the trial is tried again
    trial: TrialRecord = field(default_factory=TrialRecord)  # its words and settings
    earlier: bool = False  # ended by an earlier command: nothing was trained now
    resumed: bool = False  # from what an earlier command left
    seconds: float = 0.0  # that this command worked on it
    directory: str | None = None  # the run directory, once it is known
    fingerprint: str | None = None  # of the run, once it is known
    error: str | None = None  # why it failed, in one line
    log: str | None = None  # the file with everything the trial printed; None where that was shown
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    at: float = field(default_factory=time.time)  # when it began, in seconds since 1970
    result: Result | None = field(default=None, metadata={"apart": True})  # from its run directory, once it is done

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of the trial in this sweep."""
        return self.state in ("done", "failed", "pruned")

    @property
    def failed(self) -> bool:
        """Whether the trial counts for the exit code."""
        return self.state == "failed"

    def score(self, split: str = "validation") -> float | None:
        """The primary metric on a split; None where there is none."""
        return None if self.result is None else self.result.score(split)


class Outcomes:
    """The folder of one sweep; processes on several machines may write to it at once."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is read or written yet."""
        self.folder = folder

    @classmethod
    def create(cls, root: Path) -> Outcomes:
        """Create the folder of a new sweep below ``run.root``; a RunError where that cannot be written."""
        parent = root.expanduser().absolute() / SWEEPS
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        with writing(parent):
            parent.mkdir(parents=True, exist_ok=True)
            for count in itertools.count(1):  # an earlier sweep, or another machine's process, may have the name
                folder = parent / (name if count == 1 else f"{name}-{count}")
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    break
        return cls(folder)

    @property
    def root(self) -> Path:
        """``run.root`` of the sweep."""
        return self.folder.parents[1]

    def write(self, outcome: Outcome) -> None:
        """Replace what is known of a trial; a RunError where the file cannot be written."""
        write_json(self._path(outcome.number), to_json(outcome))
        if outcome.failed:
            (self.folder / STOP).touch()

    def read(self, number: int) -> Outcome | None:
        """What is known of a trial, with its result where it is done; None before it began."""
        try:
            outcome: Outcome = from_json(Outcome, read_json(self._path(number)), [])
        except RunError:
            return None
        outcome = replace(outcome, number=number)
        if outcome.state != "done":
            return outcome
        try:
            return replace(outcome, result=read_result(Path(outcome.directory or "")))
        except RunError as error:
            return replace(outcome, state="failed", error=str(error))

    def news(self, known: set[int]) -> Iterator[Outcome]:
        """Read trials, in order, except those that are known to have ended."""
        numbers = {int(path.stem) for path in self.folder.glob("[0-9]*.json") if path.stem.isdecimal()}
        yield from filter(None, map(self.read, sorted(numbers - known)))

    def remove(self, number: int) -> None:
        """Forget a trial, so that it counts as one that has not begun."""
        self._path(number).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all files but the logs, once the sweep has ended."""
        for path in self.folder.iterdir():
            if path.suffix != ".log":
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # where there are no logs

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.json"


def unresolved(composed: DictConfig) -> dict[str, Any]:
    """Plain values of a configuration that may be invalid, without Hydra's own."""
    values: Any = OmegaConf.to_container(composed, resolve=False)
    return {str(key): value for key, value in values.items() if key != "hydra"}


def trial_words(overrides: list[str]) -> str:
    """Overrides as the user would type them, without those that say where a run lies and how it is shown."""
    words = (word.lstrip("+") for word in overrides)
    return " ".join(word for word in words if not word.startswith(ELSEWHERE))


def split(overrides: str) -> list[str]:
    """The words of one line of overrides."""
    return _WORD.findall(overrides)
