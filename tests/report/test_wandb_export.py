"""Exports of a W&B project in each form, and what they lack."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.report.columns import record
from mmpt.report.groups import group, problems
from mmpt.report.load import load
from mmpt.report.settings import flatten
from tests.report.builder import config, result

SUMMARY = {
    "test/accuracy": 0.8,
    "test/score": 0.8,
    "best/validation_score": 0.75,
    "validation/accuracy": 0.7,
    "majority/accuracy": 0.5,
    "timing/train_s": 5.0,
    "parameters/trainable": 100,
    "memory/peak_bytes": 1000,
    "train/epoch": 2.5,
    "step": 20,
    "status": "done",
    "predictions": {"_type": "table-file"},
}


def records() -> list[dict[str, Any]]:
    return [
        {"name": f"rte-prefix-s{seed}", "state": "finished", "config": config(seed=seed), "summary": SUMMARY}
        for seed in (1, 2)
    ]


def as_json(path: Path, several: list[dict[str, Any]]) -> Path:
    path = path / "runs.json"
    path.write_text(json.dumps(several))
    return path


def as_literals(path: Path, several: list[dict[str, Any]]) -> Path:
    path = path / "project.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["", "summary", "config", "name"])
        writer.writeheader()
        for count, one in enumerate(several):
            line = {"": count, "summary": str(one["summary"]), "config": str(one["config"]), "name": one["name"]}
            writer.writerow(line)
    return path


def as_columns(path: Path, several: list[dict[str, Any]]) -> Path:
    path = path / "table.csv"
    lines = []
    for one in several:
        flat = {
            key: json.dumps(value) if isinstance(value, list | dict) else value
            for key, value in flatten(one["config"]).items()
        }
        summary = {key: value for key, value in one["summary"].items() if not isinstance(value, dict)}
        lines.append(
            {"Name": one["name"], "State": one["state"], "Notes": "-", "Created": "2026-01-01", **flat, **summary}
        )
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


@pytest.mark.parametrize("form", [as_json, as_literals, as_columns])
def test_each_form_gives_the_same_row(form: Any, tmp_path: Path) -> None:
    loaded = load([form(tmp_path, records())])
    (row,) = group(loaded.runs)
    assert (row.task, row.method, row.model, row.metric) == ("rte", "prefix", "bundled", "accuracy")
    assert row.seeds == [1, 2] and row.scores == [0.8, 0.8] and not problems([row])
    assert {str(run.settings.values["task"]["template"]) for run in row.runs if run.settings} == {
        "rte sentence1: {premise}"
    }
    assert row.median(lambda run: run.score("validation")) == 0.75
    assert row.median("timing.train_s") == 5.0 and row.median("parameters.trainable") == 100
    assert record(row)["majority"] == 0.5 and record(row)["peak_bytes"] == 1000


def test_an_export_holds_what_loggers_write(tmp_path: Path) -> None:
    from mmpt.runs.names import summary
    from mmpt.runs.result import Result

    found = dict(summary(Result.from_dict(result(score=0.8))))
    (row,) = group(load([as_json(tmp_path, [{**records()[0], "summary": found}])]).runs)
    assert row.scores == [0.8] and not problems([row])
    assert row.median(lambda run: run.score("validation")) == 0.6 and row.median("parameters.bytes") == 400
    assert row.median("timing.step_ms_median") == 10.0 and row.median("memory.peak_bytes") == 5_000_000


@pytest.mark.parametrize(
    ("named", "metric"), [("pearson_spearman", "pearson"), ("f1a_em", "f1a"), ("own", "own"), ([1], "accuracy")]
)
def test_the_primary_metric_of_a_task_counts(named: str, metric: str, tmp_path: Path) -> None:
    one = {
        **records()[0],
        "config": config(**{"task.metric": named}),
        "summary": {f"test/{metric}": 0.3, "test/spearman": 0.9},
    }
    (row,) = group(load([as_json(tmp_path, [one])]).runs)
    assert (row.metric, row.scores) == (metric, [0.3])


def test_hyperparameters_tell_rows_apart(tmp_path: Path) -> None:
    first, second = records()
    second["config"] = config(seed=2, **{"method.lr.prefix": 0.5})
    rows = group(load([as_json(tmp_path, [first, second])]).runs)
    assert sorted(row.label for row in rows) == ["prefix lr.prefix=0.05", "prefix lr.prefix=0.5"]


def test_what_did_not_finish_or_has_no_test_score_is_told(tmp_path: Path) -> None:
    done, crashed = records()
    crashed |= {"state": "crashed"}
    bare = {**done, "name": "bare", "config": config(seed=3), "summary": {"validation/accuracy": 0.9}}
    odd = {"name": "odd", "config": "{1: ", "summary": "{}"}
    rows = group(load([as_json(tmp_path, [done, crashed, bare, odd])]).runs)
    lines = "\n".join(problems(rows))
    assert "rte-prefix-s2: failed" in lines
    assert (
        "bare: damaged its test score (accuracy) is missing or not a number; the export's summary has no test/acc"
        in lines
    )
    assert "odd: damaged config or summary of record 4 cannot be read" in lines
    assert rows[0].scores == [0.8]


def test_a_long_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "config", "summary"])
        writer.writerow(["a", json.dumps({"note": "x" * 200_000}), "{}"])
    loaded = load([path])
    assert not loaded.problems and [run.name for run in loaded.runs] == ["a"]


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_what_is_no_export_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    loaded = load([path])
    assert not loaded.runs and len(loaded.problems) == 1 and str(path) in loaded.problems[0]
