"""Trials that failed before they had a run directory: one record for each, and none that is out of date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpt.runs.failures import SWEEPS, TrialRecord, clear_failure, read_failures, record_failure

SETTINGS = {"task": {"name": "rte"}, "method": {"name": "prefix", "lr": {"prefix": -1}}, "seed": 2}


def test_the_same_settings_have_one_record_that_success_deletes(tmp_path: Path) -> None:
    first = TrialRecord.of("method.lr.prefix=-1 seed=2", SETTINGS, "old")
    record_failure(tmp_path, first)
    spelt = {"seed": 2, "run": {"dir": "x"}, **SETTINGS, "method": {"name": "prefix", "lr": {"prefix": -1.0}}}
    record_failure(tmp_path, TrialRecord.of("seed=2 method.lr.prefix=-1.0", spelt, "must be positive"))
    record_failure(tmp_path, TrialRecord.of("seed=3", SETTINGS | {"seed": 3}, "x"))
    second = next(trial for trial in read_failures(tmp_path) if trial.seed == 2)
    assert second.overrides == "seed=2 method.lr.prefix=-1.0" and second.error == "must be positive"
    assert second.names == {"task": "rte", "method": "prefix"}
    clear_failure(tmp_path, first)
    assert [trial.seed for trial in read_failures(tmp_path)] == [3]


def test_secrets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    settings = {"task": {"name": "0123456789abcdef"}}
    record_failure(tmp_path, TrialRecord.of("task=0123456789abcdef", settings, "no 0123456789abcdef"))
    (path,) = tmp_path.rglob("*.json")
    assert "0123456789abcdef" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "no valid JSON"),
        ("[1]", "not an object"),
        ('{"overrides": 3}', "lacks"),
        ('{"format": 2}', "has format 2"),
    ],
)
def test_an_invalid_record_is_reported_as_one_line(text: str, part: str, tmp_path: Path) -> None:
    folder = tmp_path / SWEEPS / "failed"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(text, encoding="utf-8")
    (trial,) = read_failures(tmp_path)
    assert trial.overrides == "a.json" and part in trial.error


def test_terminal_codes_and_other_kinds_of_values_are_harmless(tmp_path: Path) -> None:
    folder = tmp_path / SWEEPS / "failed"
    folder.mkdir(parents=True)
    content = {"overrides": "a\x1b[2J\nb", "error": "x", "names": {"task": 3, "method": "m"}, "seed": "9" * 5000}
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    (trial,) = read_failures(tmp_path)
    assert trial.overrides.isprintable() and trial.seed is None and trial.names == {"method": "m"}
