"""Trials of a sweep that failed before they had a run directory: all that run directories cannot tell about a sweep.

Each is one small file below ``run.root``, named by the trial's settings: the same trial replaces or deletes it when it
runs again, whatever process or command runs it. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.errors import RunError
from mmpt.utils.files import newer_format, read_json, write_json
from mmpt.utils.secrets import redact
from mmpt.utils.untrusted import one_line

SWEEPS = ".sweeps"  # below run.root: what belongs to sweeps and to no run
FORMAT = 1  # of a record; raise it when a reader of today would misread one


@dataclass(frozen=True)
class FailedTrial:
    """A trial that left no run directory.

    Attributes:
        overrides: The words of the command line that make the trial, such as ``method=smop seed=2``.
        error: Why it failed, in one line.
        names: ``task``, ``method`` and ``model``, where the settings name them.
        seed: None where the settings have no whole number.
        format: Of the record.
    """

    overrides: str
    error: str
    names: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    format: int = FORMAT

    @classmethod
    def of(cls, overrides: str, error: str, settings: Mapping[str, Any]) -> FailedTrial:
        """Describe a trial by its composed settings, which may be invalid; secrets are left out."""
        groups = ((name, settings.get(name)) for name in ("task", "method", "model"))
        named = {name: group.get("name") for name, group in groups if isinstance(group, Mapping)}
        names = {name: redact(value) for name, value in named.items() if isinstance(value, str)}
        seed = settings.get("seed")
        whole = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
        return cls(redact(overrides), redact(error), names, whole)


def record_failure(root: Path, settings: Mapping[str, Any], trial: FailedTrial) -> None:
    """Write the record of a failed trial, or replace that of the same settings.

    Args:
        root: ``run.root``.
        settings: The trial's composed settings.
        trial: What to write.

    Raises:
        RunError: The file cannot be written.
    """
    write_json(_path(root, settings), dataclasses.asdict(trial))


def clear_failure(root: Path, settings: Mapping[str, Any]) -> None:
    """Delete the record of a trial, now that it has a run directory."""
    with contextlib.suppress(OSError):
        _path(root, settings).unlink(missing_ok=True)


def read_failures(root: Path) -> Iterator[FailedTrial]:
    """Read all records below a ``run.root``; one that cannot be read stands for itself, with the reason."""
    for path in sorted((root / SWEEPS / "failed").glob("*.json")):
        try:
            yield _parse(read_json(path))
        except (RunError, ValueError) as error:
            yield FailedTrial(one_line(path.name), f"the record of a failed trial is invalid ({one_line(error)})")


def _parse(content: Mapping[str, Any]) -> FailedTrial:
    if newer := newer_format(content, FORMAT):
        raise ValueError(newer)
    overrides, error, names = (content.get(name) for name in ("overrides", "error", "names"))
    if not isinstance(overrides, str) or not isinstance(error, str) or not isinstance(names, Mapping):
        raise ValueError("it lacks overrides, error or names")
    known = {name: one_line(value) for name, value in names.items() if isinstance(value, str)}
    seed = content.get("seed")
    whole = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
    return FailedTrial(one_line(overrides), one_line(error), known, whole)


def _path(root: Path, settings: Mapping[str, Any]) -> Path:
    """Named by values: neither the order nor the spelling of the command line's words makes another trial."""
    values = {name: value for name, value in settings.items() if name not in ("run", "sweep", "logger", "hydra")}
    numbers = json.loads(json.dumps(values, default=str), parse_int=float)  # 1 and 1.0 are one value
    text = json.dumps(numbers, sort_keys=True)
    return root.expanduser().absolute() / SWEEPS / "failed" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
