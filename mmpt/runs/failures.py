"""Trials of a sweep that failed before they had a run directory: all of a sweep that no run directory records.

Each is one small file below ``run.root``, named by the trial's settings: the same trial replaces or deletes it when it
runs again, whatever process or command runs it. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.errors import RunError
from mmpt.runs.typed_json import from_json, whole
from mmpt.utils.files import newer_format, read_json, values_key, write_json
from mmpt.utils.secrets import redact
from mmpt.utils.untrusted import one_line

SWEEPS = ".sweeps"  # below run.root: what belongs to sweeps and to no run
FORMAT = 1  # of a record; raise it when a reader of today would misread one


@dataclass(frozen=True)
class TrialRecord:
    """A trial that left no run directory."""

    overrides: str = ""  # the words of the command line that make the trial, such as method=smop seed=2
    names: Mapping[str, str] = field(default_factory=dict)  # task, method and model, where the settings name them
    error: str = ""  # why it failed, in one line
    key: str = ""  # identifies its settings by their values
    seed: int | None = field(default=None, metadata={"null": True})  # None where the settings have no whole number
    format: int = FORMAT  # of the record

    @classmethod
    def of(cls, overrides: str, settings: Mapping[str, Any], error: str = "") -> TrialRecord:
        """Describe a trial by its composed settings, which may be invalid; secrets are left out."""
        groups = ((name, settings.get(name)) for name in ("task", "method", "model"))
        named = {name: group.get("name") for name, group in groups if isinstance(group, Mapping)}
        names = {name: redact(value) for name, value in named.items() if isinstance(value, str)}
        values = {name: value for name, value in settings.items() if name not in ("run", "sweep", "logger", "hydra")}
        return cls(redact(overrides), names, redact(error), values_key(values), whole(settings.get("seed")))


def record_failure(root: Path, trial: TrialRecord) -> None:
    """Write the record of a failed trial below ``run.root``, or replace that of the same settings.

    Raises:
        RunError: The file cannot be written.
    """
    write_json(_path(root, trial), dataclasses.asdict(trial))


def clear_failure(root: Path, trial: TrialRecord) -> None:
    """Delete the record of a trial, now that it has a run directory."""
    with contextlib.suppress(OSError):
        _path(root, trial).unlink(missing_ok=True)


def read_failures(root: Path) -> Iterator[TrialRecord]:
    """Read all records below a ``run.root``; one that cannot be read has the reason as its error."""
    for path in sorted((root / SWEEPS / "failed").glob("*.json")):
        try:
            content = read_json(path)
            if newer := newer_format(content, FORMAT):
                raise ValueError(newer)
            trial: TrialRecord = from_json(TrialRecord, content, [])
            if not trial.overrides or not trial.error:
                raise ValueError("it lacks overrides or error")
            names = {name: one_line(value) for name, value in trial.names.items()}
            overrides, error_text = one_line(trial.overrides), one_line(trial.error)
            yield dataclasses.replace(trial, overrides=overrides, error=error_text, names=names)
        except (RunError, ValueError) as error:
            yield TrialRecord(one_line(path.name), {}, f"the record of a failed trial is invalid ({one_line(error)})")


def _path(root: Path, trial: TrialRecord) -> Path:
    return root.expanduser().absolute() / SWEEPS / "failed" / f"{trial.key}.json"
