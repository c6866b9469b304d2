"""Trials that a sweep recorded and that left no run directory: failed before they had one, or deleted since."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.report.run import Run
from mmpt.sweep.ledger import FOLDER, FORMAT
from mmpt.utils.files import newer_format
from mmpt.utils.untrusted import one_line, parse_json, read_lines

PATTERN = f"{FOLDER}/*/trials.jsonl"  # below run.root, a folder for each time a sweep was started


def lost_trials(root: Path, found: set[str]) -> Iterator[Run]:
    """Read what sweeps recorded below a root.

    Args:
        root: The run.root of sweeps; another folder has no records.
        found: Names of the run directories that are there.

    Yields:
        One run a trial that none of them stands for, as its latest record has it.
    """
    latest: dict[str, Mapping[str, Any]] = {}
    for path in sorted(root.glob(PATTERN)):
        name = one_line(path.relative_to(root))
        try:
            for record in _records(path):
                if newer := newer_format(record, FORMAT):
                    yield Run(name, "damaged", problem=f"what a sweep recorded {newer}")
                    break
                latest[record["overrides"]] = record
        except ValueError as error:
            yield Run(name, "damaged", problem=f"what a sweep recorded can't be read ({error})")
    for overrides, record in latest.items():
        directory = record.get("directory")
        if isinstance(directory, str) and Path(directory).name in found:
            continue
        yield _lost(overrides, record, directory)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    """Trials that a sweep recorded."""
    for line in read_lines(path):
        try:
            record = parse_json(line)
        except ValueError:  # cut short by a crash; a sweep that goes on records the trial again
            continue
        if isinstance(record, dict) and isinstance(record.get("overrides"), str):
            yield record


def _lost(overrides: str, record: Mapping[str, Any], directory: Any) -> Run:
    words = dict(word.split("=", 1) for word in overrides.split() if "=" in word)
    seed = words.get("seed", words.get("++seed", ""))
    names = {name: word for name, word in words.items() if name in ("task", "method", "model")}
    state = str(record.get("state"))
    problem = one_line(record.get("error") or "")
    if isinstance(directory, str):
        state, problem = "missing", f"a sweep recorded it as {state}, but {directory} is gone"
    elif state == "started":
        state, problem = "missing", "a sweep began it, and it left no run directory"
    number = int(seed) if re.fullmatch("[0-9]{1,18}", seed) else None
    return Run(one_line(overrides), state, {}, None, number, None, problem, names)
