"""Runs as they lie on disk: complete, under way, failed or damaged. Nothing is dropped; each problem is one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.errors import RunError
from mmpt.report.run import Run, from_content
from mmpt.report.settings import read_settings
from mmpt.report.wandb_export import read_export
from mmpt.runs.failures import SWEEPS, read_failures
from mmpt.runs.result import FORMAT
from mmpt.runs.status import STATUS, process_alive
from mmpt.utils.files import newer_format
from mmpt.utils.untrusted import one_line, parse_object, read_bytes, read_lines, read_text


class Loaded(NamedTuple):
    """All runs, and one line for each path without one."""

    runs: list[Run]
    problems: list[str]


def load(paths: Iterable[Path]) -> Loaded:
    """Read runs.

    Args:
        paths: Run directories, folders of run directories, jsonl files that ``--out`` wrote, or exports of a W&B
            project (``.json`` or ``.csv``; see :mod:`mmpt.report.wandb_export`).

    Returns:
        The runs in order of paths and names. A path without a run is one of ``problems``.
    """
    loaded = Loaded([], [])
    for path in paths:
        before = len(loaded.runs)
        try:
            loaded.runs.extend(_read_path(path))
        except (RunError, OSError, ValueError) as error:
            loaded.problems.append(one_line(error))
            continue
        if len(loaded.runs) == before:
            loaded.problems.append(f"{path} holds no run; give run directories, or the run.root of a sweep")
    return loaded


def _read_path(path: Path) -> Iterable[Run]:
    if path.is_dir():
        errors: list[OSError] = []
        runs = [read_run(directory) for directory in find_runs(path, errors.append)]
        runs += [Run(one_line(e.filename), "damaged", problem=f"cannot be read ({_why(e)})") for e in errors]
        failed = read_failures(path)  # before they had a run directory
        return runs + [Run(t.overrides, "failed", None, None, t.seed, None, t.error, t.names) for t in failed]
    if not path.exists():
        raise RunError(f"{path} does not exist; give run directories, their root, or jsonl files")
    if path.suffix == ".jsonl":
        return _read_lines(path)
    if path.suffix in (".json", ".csv"):
        return read_export(path)
    raise RunError(f"{path} is no folder, .jsonl, .json or .csv file; give run directories, their root, or such a file")


def find_runs(root: Path, unreadable: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Find run directories by name: folders with ``status.json``; nothing inside of one is searched.

    Args:
        root: A run directory, or a folder above some.
        unreadable: Called with the error of each folder that cannot be read.
    """
    for folder, names, files in os.walk(root, onerror=unreadable):
        if STATUS in files or "result.json" in files:
            names.clear()
            yield Path(folder)
        names[:] = sorted(name for name in names if name != SWEEPS)


def read_run(directory: Path) -> Run:
    """Read one run directory without its predictions and metrics.

    What cannot be read makes the run ``damaged``, and ``problem`` says what.
    """
    run = Run(one_line(directory.name), "damaged", directory=directory)
    try:
        settings, seed = read_settings(read_text(directory / "config.yaml"))
        run = replace(run, settings=settings, seed=seed)
    except (OSError, ValueError) as error:
        run = replace(run, problem=f"its config.yaml cannot be read ({_why(error)})")
    try:
        status = _object(directory / STATUS)
        if newer := newer_format(status, FORMAT):
            raise ValueError(f"it {newer}")
        if status.get("status") == "done":
            return from_content(run, _object(directory / "result.json"))
    except ValueError as error:
        return replace(run, problem=one_line(error))
    if status.get("status") == "running" and not process_alive(status):
        why = "its status says running, but its process is gone; run the same command again to resume"
        return replace(run, status="killed", problem=why)
    failure = status.get("error")
    why = one_line(failure.get("message", "")) if isinstance(failure, Mapping) else ""
    return replace(run, status=str(status.get("status", "damaged")), problem=why)


def _read_lines(path: Path) -> Iterator[Run]:
    """Read results, one a line; a line that is none is a damaged run of its own."""
    try:
        for count, line in enumerate(read_lines(path), start=1):
            run = Run(f"{path.name}:{count}", "damaged")
            try:
                if line.strip():
                    yield from_content(run, parse_object(line))
            except ValueError as error:
                yield replace(run, problem=one_line(error))
    except ValueError as error:
        yield Run(path.name, "damaged", problem=one_line(error))


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; every failure is a ValueError in one line."""
    try:
        return parse_object(read_bytes(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"its {path.name} cannot be read: {_why(error)}") from error


def _why(error: Exception) -> str:
    return one_line(error.strerror or error) if isinstance(error, OSError) else one_line(error)
