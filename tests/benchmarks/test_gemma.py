"""The comparison on Gemma: every command is valid, and trials follow from the results there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gemma, gemma_compare
from benchmarks.gemma_compare import ORDER, RATES, table, trials
from mmpt.config.compose import CONF, compose, read_command_line
from mmpt.errors import ModelError
from mmpt.training.settings import find_problems


@pytest.mark.parametrize(("task", "method"), ORDER)
def test_every_trial_is_a_valid_command(task: str, method: str, tmp_path: Path) -> None:
    for trial in trials(task, method):
        line = read_command_line([*trial.words(), f"model.path={tmp_path}", f"data.dir={tmp_path}"], CONF)
        assert not line.problems
        assert not find_problems(compose(line.overrides, CONF))


def test_the_best_rate_on_validation_gets_the_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemma_compare, "RESULTS", tmp_path)
    assert [one.seed for one in trials("rte", "lora")] == [1, 1, 1]
    for rate, score in zip(RATES, (0.5, 0.6, 0.7), strict=True):
        content = {"metric": "accuracy", "scores": {"validation": {"accuracy": score}, "test": {"accuracy": 1 - score}}}
        (tmp_path / f"rte-lora-{rate}-s1.json").write_text(json.dumps(content), encoding="utf-8")
    assert [(one.rate, one.seed) for one in trials("rte", "lora")][3:] == [("high", 2), ("high", 3)]
    assert "| lora | 30.0 (n = 1) |" in table()


def test_joined_parts_of_another_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="delete pip's cache and try again"):
        gemma.join([], tmp_path / "whole")
