"""The comparison on Gemma: every command is valid, and trials follow from the results there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gemma, gemma_compare
from benchmarks.gemma_compare import METHODS, QUESTIONS, RATES, RESPLIT, TASKS, Trial, resplit, table, trials
from mmpt.config.compose import CONF, compose, read_command_line
from mmpt.errors import ModelError
from mmpt.training.settings import find_problems


@pytest.mark.parametrize(
    ("task", "method"), [*((task, "prefix") for task in TASKS), *(("cb", name) for name in METHODS)]
)
def test_every_trial_is_a_valid_command(task: str, method: str, tmp_path: Path) -> None:
    words = Trial(task, method, "mid", 1).words()
    given = [f"--config-dir={QUESTIONS}", *words, f"model.path={tmp_path}", f"data.dir={tmp_path}"]
    line = read_command_line(given, CONF)
    assert not line.problems
    assert not find_problems(compose(line.overrides, CONF, line.config_dir))


def test_the_best_rate_on_validation_gets_the_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemma_compare, "RESULTS", tmp_path)
    assert [one.seed for one in trials("rte", "lora")] == [1, 1, 1]
    assert list(trials("boolq", "lora")) == []
    for rate, score in zip(RATES, (0.5, 0.6, 0.7), strict=True):
        content = {"metric": "accuracy", "scores": {"validation": {"accuracy": score}, "test": {"accuracy": 1 - score}}}
        (tmp_path / f"rte-lora-{rate}-s1.json").write_text(json.dumps(content), encoding="utf-8")
    assert [(one.rate, one.seed) for one in trials("rte", "lora")][3:] == [("high", 2), ("high", 3)]
    assert [(one.rate, one.seed) for one in trials("boolq", "lora")] == [("high", 1), ("high", 2), ("high", 3)]
    assert not list(trials("rte", "multimask_open")), "it takes the rate that multimask chose"
    assert "| lora | 30.0 (n = 1) |" in table()


def test_tasks_are_divided_anew(tmp_path: Path) -> None:
    data = tmp_path / "superglue"
    sizes = {"RTE": 5, "CB": 5, "BoolQ": 1500, "WiC": 500}
    for name, size in sizes.items():
        (data / name).mkdir(parents=True)
        rows = [json.dumps({"passage": f"p{row // 3}", "word": f"w{row // 7}", "row": row}) for row in range(size)]
        for file in ("train.jsonl", "val.jsonl"):
            (data / name / file).write_text("\n".join(rows) + "\n", encoding="utf-8")
    out = resplit(data, tmp_path / "root")
    assert resplit(data, tmp_path / "root") == out
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["data"]
    assert (out / "RTE/val.jsonl").read_text(encoding="utf-8") == (data / "RTE/val.jsonl").read_text(encoding="utf-8")
    for name, (field, test) in RESPLIT.items():
        train, held = (
            [json.loads(line) for line in (out / name / file).read_text(encoding="utf-8").splitlines()]
            for file in ("train.jsonl", "val.jsonl")
        )
        assert sorted(row["row"] for row in [*train, *held]) == list(range(sizes[name]))
        assert not {row[field] for row in train} & {row[field] for row in held}
        assert test <= len(held) < test + 7


def test_joined_parts_of_another_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="delete pip's cache and try again"):
        gemma.join([], tmp_path / "whole")
