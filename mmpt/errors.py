"""Errors a user can act on: each is one clear line (what, where, what is allowed, how to fix)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class MmptError(Exception):
    """Base of every error the command line shows as one line, without a traceback."""

    exit_code = 2


class ConfigError(MmptError):
    """The configuration is wrong; ``problems`` holds every finding, one line each."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        """Store the findings, and join them for display.

        Args:
            problems: One finding, or several that are reported together.
        """
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(MmptError):
    """A data file, a field, a label or a split is missing or wrong."""


class ModelError(MmptError):
    """A backbone cannot be loaded, is not what was stated, or cannot be injected."""


class AdapterError(MmptError):
    """A saved adapter is missing, corrupt, or belongs to another backbone or method."""


class HubError(MmptError):
    """The hub refuses or cannot be reached, or a name is none of its repositories."""


class RunError(MmptError):
    """A run directory cannot be used: wrong owner, no permission, disk full, in use."""


class InUseError(RunError):
    """Another process writes to the run directory."""


class CacheError(MmptError):
    """The cache directory cannot be used, or lacks the room."""


class TrainingError(MmptError):
    """Training cannot continue, for example because the loss is not a number."""


class DashboardError(MmptError):
    """A dashboard cannot be built: a package, a key or the server is missing."""


def nearest(word: object, choices: Iterable[str]) -> str:
    """Say which choice was probably meant.

    Args:
        word: What the user typed.
        choices: The valid spellings.

    Returns:
        ``'; did you mean "x"?'`` or the empty string where nothing is near.
    """
    found = difflib.get_close_matches(str(word), list(choices), n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else ""
