"""What a logger is, and all loggers of a run behind one interface. Imports nothing heavy."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from mmpt.errors import ConfigError
from mmpt.utils.files import write_text
from mmpt.utils.untrusted import one_line, read_bytes

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told of a run.

    Attributes:
        name: What the run is called.
        group: Runs to be averaged, such as the seeds of one setting, share a group.
        config: The resolved configuration, plain values.
        directory: The run directory.
        tags: Labels to filter by.
        resume_step: The last step that an interrupted run keeps; what lies beyond comes again. None: a new run.
    """

    name: str
    group: str | None
    config: Mapping[str, Any]
    directory: Path
    tags: Sequence[str] = ()
    resume_step: int | None = None


def kept_id(path: Path) -> str:
    """What tells a run from all others where its metrics go: drawn once, kept in the run directory.

    Args:
        path: The file that keeps it.

    Raises:
        ConfigError: It holds anything else; a logger makes a path, an address or a name of it.
    """
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    found = read_bytes(path).decode("utf-8", errors="replace")
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found) is None:
        raise ConfigError(f"{path} holds no id of a run; delete it, and the run gets a new one")
    return found


class Logger(Protocol):
    """One place where metrics go, told in this order: start, then any of the middle ones, then finish.

    A logger may raise anything: :class:`Loggers` makes one line of it, and the run goes on. Only a ConfigError ends it.
    """

    label: str  # what the user knows it by

    def start(self, run: RunInfo) -> None:
        """Begin a run, or go on with the one that began in the same run directory.

        Raises:
            ConfigError: The run must not begin, because the settings insist on what can't be had.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at an optimizer step."""

    def heatmap(self, key: str, array: npt.NDArray[Any], step: int) -> None:
        """Record what R masks let through: ``array: (R, S, L)``, values in [0, 1]."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Record numbers about the whole run, such as its test score."""

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Record a file or a folder, such as the adapter."""

    def finish(self, status: str) -> None:
        """End the run: ``done``, ``failed`` or ``interrupted``."""


class Loggers:
    """All loggers of a run, or none: each call goes to each. A logger may fail; a run never fails because of one."""

    def __init__(self, loggers: Sequence[Logger], say: Say) -> None:
        """Keep loggers that have not started.

        Args:
            loggers: Any number of them.
            say: Shows one line to the user.
        """
        self.loggers = tuple(loggers)
        self._say = say
        self._started: list[Logger] = []
        self._complained: set[tuple[str, str]] = set()

    def start(self, run: RunInfo) -> None:
        """Begin a run in every logger; one that can't is left out.

        Raises:
            ConfigError: As a logger says.
        """
        for logger in self.loggers:
            if self._safely(logger, "starting", lambda logger: logger.start(run)):
                self._started.append(logger)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See :meth:`Logger.log`."""
        self._each("logging", lambda logger: logger.log(step, values))

    def heatmap(self, key: str, array: npt.NDArray[Any], step: int) -> None:
        """See :meth:`Logger.heatmap`."""
        self._each("drawing", lambda logger: logger.heatmap(key, array, step))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """See :meth:`Logger.table`."""
        self._each("logging a table", lambda logger: logger.table(key, columns, rows))

    def summary(self, values: Mapping[str, float]) -> None:
        """See :meth:`Logger.summary`."""
        self._each("logging the summary", lambda logger: logger.summary(values))

    def artifact(self, path: Path, name: str, type: str) -> None:
        """See :meth:`Logger.artifact`."""
        self._each("saving an artifact", lambda logger: logger.artifact(path, name, type))

    def finish(self, status: str) -> None:
        """See :meth:`Logger.finish`; whatever comes after it is ignored."""
        self._each("finishing", lambda logger: logger.finish(status))
        self._started = []

    def _each(self, what: str, operation: Callable[[Logger], object]) -> None:
        for logger in self._started:
            self._safely(logger, what, operation)

    def _safely(self, logger: Logger, what: str, operation: Callable[[Logger], object]) -> bool:
        """Whether it went well; an error becomes one line, once for each logger and kind of operation."""
        try:
            operation(logger)
        except ConfigError:
            raise
        except Exception as error:  # each backend has errors of its own, and none may stop a run
            if (logger.label, what) not in self._complained:
                self._complained.add((logger.label, what))
                line = one_line(error)[:200]
                self._say(f"{logger.label}: {what} failed ({type(error).__name__}: {line}); the run goes on")
            return False
        return True
