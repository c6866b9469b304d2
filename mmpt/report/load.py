"""Runs as they lie on disk: whole, under way, failed or damaged. Nothing is dropped; each problem is one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.errors import RunError
from mmpt.report.run import Run, checked, from_result, whole_number
from mmpt.report.settings import SettingsReader
from mmpt.report.wandb_export import read_export
from mmpt.runs.failures import SWEEPS, read_failures
from mmpt.runs.result import FORMAT
from mmpt.runs.status import process_alive
from mmpt.utils.files import newer_format
from mmpt.utils.untrusted import one_line, parse_json, read_bytes, read_lines, read_text


@dataclass
class Loaded:
    """All runs found, and what is to be said about places that hold none."""

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load(places: Iterable[Path]) -> Loaded:
    """Read runs.

    Args:
        places: Run directories, folders of run directories, jsonl files that ``--out`` wrote, or exports of a W&B
            project (``.json`` or ``.csv``; see :mod:`mmpt.report.wandb_export`).

    Returns:
        The runs in order of places and names. A place with nothing in it is one of ``problems``.
    """
    loaded, reader = Loaded(), SettingsReader()
    for place in places:
        before = len(loaded.runs)
        try:
            loaded.runs += _read_place(place, reader)
        except (RunError, OSError, ValueError) as error:
            loaded.problems.append(one_line(error))
            continue
        if len(loaded.runs) == before:
            loaded.problems.append(f"{place} holds no run; give run directories, or the run.root of a sweep")
    return loaded


def _read_place(place: Path, reader: SettingsReader) -> Iterable[Run]:
    if place.is_dir():
        closed: list[OSError] = []
        directories = list(find_runs(place, closed.append))
        runs = [read_run(directory, reader) for directory in directories]
        runs += [Run(one_line(error.filename), "damaged", problem=f"can't be read ({_why(error)})") for error in closed]
        failed = read_failures(place)  # before they had a run directory
        return runs + [Run(t.overrides, "failed", {}, None, t.seed, None, t.error, t.names) for t in failed]
    if not place.exists():
        raise RunError(f"{place} doesn't exist; give run directories, their root, or jsonl files")
    if place.suffix == ".jsonl":
        return _read_lines(place)
    if place.suffix in (".json", ".csv"):
        return read_export(place)
    raise RunError(
        f"{place} is no folder, .jsonl, .json or .csv file; give run directories, their root, or such a file"
    )


def find_runs(place: Path, unreadable: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Find run directories: folders with ``status.json``; nothing inside of one is searched.

    Args:
        place: A run directory, or a folder above some.
        unreadable: Is told of folders that can't be read.

    Yields:
        Run directories by name.
    """
    for folder, names, files in os.walk(place, onerror=unreadable):
        if "status.json" in files or "result.json" in files:
            names.clear()
            yield Path(folder)
        names[:] = sorted(name for name in names if name != SWEEPS)


def read_run(directory: Path, reader: SettingsReader) -> Run:
    """Read one run directory without its predictions and metrics.

    Args:
        directory: The run directory.
        reader: Keeps what runs share.

    Returns:
        The run; what can't be read makes it ``damaged``, and ``problem`` says what.
    """
    try:
        status = _object(directory / "status.json")
        if newer := newer_format(status, FORMAT):
            raise ValueError(f"it {newer}")
    except ValueError as error:
        status = {"status": "damaged", "error": {"message": one_line(error)}}
    name, settings, seed, problem = one_line(directory.name), None, None, ""
    try:
        settings, seed = reader.read(read_text(directory / "config.yaml"))
    except (OSError, ValueError) as error:
        problem = f"its config.yaml can't be read ({_why(error)})"
    state, result = str(status.get("status", "damaged")), {}
    if state == "done":
        try:
            result = _object(directory / "result.json")
        except ValueError as error:
            return Run(name, "damaged", {}, settings, whole_number(seed), directory, one_line(error))
        return checked(Run(name, "done", result, settings, whole_number(seed), directory, problem))
    told = status.get("error")
    why = one_line(told.get("message", "")) if isinstance(told, Mapping) else ""
    if state == "running" and not process_alive(status):
        state, why = "killed", "its status says running, but the process is gone; the same command goes on"
    return Run(name, state, {}, settings, whole_number(seed), directory, why)


def _read_lines(path: Path) -> Iterator[Run]:
    """Read results, one a line; a line that is none is a damaged run of its own."""
    try:
        for count, line in enumerate(read_lines(path), start=1):
            if line.strip():
                yield _of_line(f"{path.name}:{count}", line)
    except ValueError as error:
        yield Run(path.name, "damaged", problem=one_line(error))


def _of_line(name: str, line: str) -> Run:
    try:
        result = parse_json(line)
    except ValueError as error:
        return Run(name, "damaged", problem=f"no valid JSON ({error})")
    if not isinstance(result, dict):
        return Run(name, "damaged", problem=f"a {type(result).__name__}, not an object")
    return from_result(name, result)


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; every failure is a ValueError in one line."""
    try:
        content = parse_json(read_bytes(path))
    except OSError as error:
        raise ValueError(f"its {path.name} can't be read ({_why(error)})") from error
    except ValueError as error:
        raise ValueError(f"its {path.name} is no valid JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"its {path.name} holds no object")
    return content


def _why(error: Exception) -> str:
    return one_line(error.strerror or error) if isinstance(error, OSError) else one_line(error)
