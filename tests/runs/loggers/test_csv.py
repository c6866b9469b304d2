from __future__ import annotations

import csv
from pathlib import Path

from mmpt.config.schema import LoggerConfig
from tests.runs.loggers.example import end, start, steps

CSV = LoggerConfig(csv=True)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_step_is_one_row_and_new_columns_are_added(tmp_path: Path) -> None:
    said: list[str] = []
    loggers = start(tmp_path, CSV, said)
    loggers.log(1, {"train/loss": 2.0})
    loggers.log(2, {"train/loss": 1.0})
    loggers.log(2, {"validation/score": 0.5, "with, comma": 3.0})
    loggers.log(3, {"train/loss": 0.25, "validation/score": 0.75})
    loggers.log(3, {"with, comma": 4.0})
    assert read(tmp_path / "csv" / "metrics.csv") == [
        {"step": "1", "train/loss": "2.0", "validation/score": "", "with, comma": ""},
        {"step": "2", "train/loss": "1.0", "validation/score": "0.5", "with, comma": "3.0"},
        {"step": "3", "train/loss": "0.25", "validation/score": "0.75", "with, comma": "4.0"},
    ]
    end(loggers, tmp_path)
    assert said == []
    assert read(tmp_path / "csv" / "predictions.csv")[0] == {"source": "a | b,\nc", "prediction": "entailment"}
    summary = {row["name"]: row["value"] for row in read(tmp_path / "csv" / "summary.csv")}
    assert summary == {"test/score": "0.5", "parameters/trainable": "12"}


def test_masks_have_a_row_a_value(tmp_path: Path) -> None:
    loggers = start(tmp_path, CSV, [])
    steps(loggers, 1, 2)
    rows = read(tmp_path / "csv" / "masks.csv")
    assert len(rows) == 2 * 2 * 3 * 4
    assert rows[-1] == {"step": "2", "site": "decoder", "route": "1", "token": "2", "layer": "3", "value": "0.2"}


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    steps(start(tmp_path, CSV, []), 1, 2, 3, 4)
    metrics = tmp_path / "csv" / "metrics.csv"
    with metrics.open("a", encoding="utf-8") as file:
        file.write("5,0.2")  # and then the process was killed
    loggers = start(tmp_path, CSV, [], resume_step=2)
    loggers.log(2, {"train/grad_norm": 7.0})
    steps(loggers, 3, 4, 5)
    rows = read(metrics)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[1] == {"step": "2", "train/loss": "0.5", "validation/score": "0.2", "train/grad_norm": "7.0"}
    assert len(read(tmp_path / "csv" / "masks.csv")) == 5 * 2 * 3 * 4


def test_a_run_that_begins_again_has_no_old_rows(tmp_path: Path) -> None:
    for resume_step in (None, -1, None):
        steps(start(tmp_path, CSV, [], resume_step), 1, 2)
        assert [row["step"] for row in read(tmp_path / "csv" / "metrics.csv")] == ["1", "2"]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "csv").touch()
    said: list[str] = []
    loggers = start(tmp_path, CSV, said)
    steps(loggers, 1, 2)
    end(loggers, tmp_path)
    assert len(said) == 1 and said[0].startswith("CSV: starting failed (RunError")
