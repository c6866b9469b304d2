"""Runs of an export of a W&B project: a JSON or CSV file of runs with their config and summary.

docs/report.md describes the three forms and shows how to make each.
"""

from __future__ import annotations

import ast
import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpt.data.metrics import TABLE, find, known
from mmpt.errors import RunError
from mmpt.report.run import Run, from_content
from mmpt.report.settings import Settings, flatten, nested
from mmpt.runs.result import Result
from mmpt.runs.typed_json import fields, number, whole
from mmpt.utils.untrusted import one_line, parse_json, read_bytes

LARGEST_EXPORT = 2**30  # bytes; some hundred thousand runs
STATES = {"finished": "done", "crashed": "failed"}
SCORES = {  # of scores in a summary; the first one that it has counts
    "test": ("test/{metric}", "test/score"),
    "validation": ("best/validation_score", "validation/{metric}"),
    "majority": ("majority/{metric}",),
}


def read_export(path: Path) -> Iterator[Run]:
    """Read a ``.json`` or ``.csv`` file, a run a record; one that is not finished or lacks what a row needs says so.

    Raises:
        RunError: The file is no such export.
    """
    try:
        text = read_bytes(path, LARGEST_EXPORT).decode("utf-8-sig", errors="replace")
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {error}; export fewer runs at once") from error
    csv.field_size_limit(sys.maxsize)  # a run's whole configuration is one cell; the default refuses 128 KiB
    table: Iterable[dict[str, Any]] = csv.DictReader(io.StringIO(text, newline=""))
    for count, record in enumerate(table if path.suffix == ".csv" else _json_records(text, path), start=1):
        name = one_line(record.get("name") or record.get("Name") or f"{path.name}:{count}")
        try:
            config, summary = _parts(record)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            why = f"config or summary of record {count} cannot be read ({one_line(error)})"
            yield Run(name, "damaged", problem=why)
            continue
        state = one_line(record.get("state") or record.get("State") or summary.get("status") or "finished")
        yield _run(name, STATES.get(state, state), config, summary)


def _json_records(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise RunError(f"{path} is no valid JSON ({error}); export the runs again") from error
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise RunError(f"{path} is no list of runs; an export holds objects with name, state, config and summary")
    return content


def _parts(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration, nested, and summary of one record, whatever the form of the export."""
    if "config" in record and "summary" in record:
        return nested(_mapping(record["config"])), flatten(_mapping(record["summary"]), dot="/")
    values = {name: _value(value) for name, value in record.items() if name and isinstance(value, str) and value}
    summary = {name: value for name, value in values.items() if "/" in name or name == "status"}
    config = {name: value for name, value in values.items() if name not in summary and name[:1].islower()}
    return nested(config), summary


def _value(cell: str) -> Any:
    """A cell of a table: a number, a truth value or a list as JSON, else a text."""
    try:
        return parse_json(cell)
    except ValueError:
        return cell


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and isinstance(value := _value(text := value), str):
        value = ast.literal_eval(text)
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not a mapping")
    return value


def _run(name: str, state: str, config: dict[str, Any], summary: Mapping[str, Any]) -> Run:
    known_keys = {key: value for key, value in config.items() if not key.startswith("_")}
    run = Run(name, state, None, Settings.of(known_keys), whole(config.get("seed")))
    if state != "done":
        return run
    named = run.group("task").get("metric")
    metric = find(named)[0].name if isinstance(named, str) and named in TABLE else str(named)
    if all(number(summary.get(key.format(metric=metric))) is None for key in SCORES["test"]):
        metric = next((one for one in known() if number(summary.get(f"test/{one}")) is not None), "accuracy")
    content: dict[str, Any] = dict.fromkeys(fields(Result))
    content |= {key: run.known(key) for key in ("task", "method", "model")} | {"seed": run.seed, "metric": metric}
    for group in ("timing", "parameters", "memory"):
        content[group] = {key[len(group) + 1 :]: value for key, value in summary.items() if key.startswith(f"{group}/")}
    found = {split: [summary.get(key.format(metric=metric)) for key in keys] for split, keys in SCORES.items()}
    numbers = {split: [one for one in values if number(one) is not None] for split, values in found.items()}
    content["scores"] = {split: {metric: values[0]} for split, values in numbers.items() if values}
    content |= {"steps": summary.get("step"), "epochs": summary.get("train/epoch")}
    run = from_content(run, content)
    if run.status == "done" or numbers["test"]:
        return run
    return replace(run, problem=f"{run.problem}; the export's summary has no test/{metric}")
