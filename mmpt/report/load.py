"""Runs as they lie on disk: complete, under way, failed or damaged. Nothing is dropped; each problem is one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmpt.errors import RunError
from mmpt.report.run import Run, from_content
from mmpt.report.settings import SettingsReader
from mmpt.report.wandb_export import read_export
from mmpt.runs.failures import SWEEPS, read_failures
from mmpt.runs.result import FORMAT
from mmpt.runs.status import STATUS, process_alive
from mmpt.utils.files import newer_format
from mmpt.utils.untrusted import one_line, parse_json, read_bytes, read_lines, read_text


@dataclass
class Loaded:
    """All runs, and one line for each path without one."""

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load(paths: Iterable[Path]) -> Loaded:
    """Read runs.

    Args:
        paths: Run directories, folders of run directories, jsonl files that ``--out`` wrote, or exports of a W&B
            project (``.json`` or ``.csv``; see :mod:`mmpt.report.wandb_export`).

    Returns:
        The runs in order of paths and names. A path without a run is one of ``problems``.
    """
    loaded, reader = Loaded(), SettingsReader()
    for path in paths:
        before = len(loaded.runs)
        try:
            loaded.runs += _read_path(path, reader)
        except (RunError, OSError, ValueError) as error:
            loaded.problems.append(one_line(error))
            continue
        if len(loaded.runs) == before:
            loaded.problems.append(f"{path} holds no run; give run directories, or the run.root of a sweep")
    return loaded


def _read_path(path: Path, reader: SettingsReader) -> Iterable[Run]:
    if path.is_dir():
        errors: list[OSError] = []
        runs = [read_run(directory, reader) for directory in find_runs(path, errors.append)]
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
    """Find run directories: folders with ``status.json``; nothing inside of one is searched.

    Args:
        root: A run directory, or a folder above some.
        unreadable: Called with the error of each folder that cannot be read.

    Yields:
        Run directories by name.
    """
    for folder, names, files in os.walk(root, onerror=unreadable):
        if STATUS in files or "result.json" in files:
            names.clear()
            yield Path(folder)
        names[:] = sorted(name for name in names if name != SWEEPS)


def read_run(directory: Path, reader: SettingsReader) -> Run:
    """Read one run directory without its predictions and metrics.

    Args:
        directory: The run directory.
        reader: Shared by all runs of a report.

    Returns:
        The run; what cannot be read makes it ``damaged``, and ``problem`` says what.
    """
    run = Run(one_line(directory.name), "damaged", directory=directory)
    try:
        settings, seed = reader.read(read_text(directory / "config.yaml"))
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
    error_of_run = status.get("error")
    why = one_line(error_of_run.get("message", "")) if isinstance(error_of_run, Mapping) else ""
    if status.get("status") == "running" and not process_alive(status):
        why = "its status says running, but its process is gone; run the same command again to resume"
        return replace(run, status="killed", problem=why)
    return replace(run, status=str(status.get("status", "damaged")), problem=why)


def _read_lines(path: Path) -> Iterator[Run]:
    """Read results, one a line; a line that is none is a damaged run of its own."""
    try:
        for count, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            run = Run(f"{path.name}:{count}", "damaged")
            try:
                yield from_content(run, _parsed(line))
            except ValueError as error:
                yield replace(run, problem=one_line(error))
    except ValueError as error:
        yield Run(path.name, "damaged", problem=one_line(error))


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; every failure is a ValueError in one line."""
    try:
        return _parsed(read_bytes(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"its {path.name} cannot be read: {_why(error)}") from error


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"it is no valid JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not an object")
    return content


def _why(error: Exception) -> str:
    return one_line(error.strerror or error) if isinstance(error, OSError) else one_line(error)
