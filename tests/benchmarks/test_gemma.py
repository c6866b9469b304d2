"""The comparison on Gemma: every command is valid, and trials follow from the results there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gemma, gemma_compare
from benchmarks.gemma_compare import METHODS, QUESTIONS, RESPLIT, TASKS, Trial, resplit, table, trials
from mmpt.config.compose import CONF, compose, read_command_line
from mmpt.errors import ModelError
from mmpt.training.settings import find_problems
from mmpt.utils import extensions


@pytest.mark.parametrize(
    ("task", "method"), [*((task, "prefix") for task in TASKS), *(("cb", name) for name in METHODS)]
)
def test_every_trial_is_a_valid_command(
    task: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(extensions.VARIABLE, str(QUESTIONS))  # as --config-dir does
    words = Trial(task, method, "mid", 1).words()
    given = [f"--config-dir={QUESTIONS}", *words, f"model.path={tmp_path}", f"data.dir={tmp_path}"]
    line = read_command_line(given, CONF)
    assert not line.problems
    assert not find_problems(compose(line.overrides, CONF, line.config_dir))


def test_the_best_rate_on_validation_gets_the_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemma_compare, "RESULTS", tmp_path)

    def write(rate: str, score: float) -> None:
        content = {"metric": "accuracy", "scores": {"validation": {"accuracy": score}, "test": {"accuracy": 1 - score}}}
        (tmp_path / f"cb-lora-{rate}-s1.json").write_text(json.dumps(content), encoding="utf-8")

    def chosen(task: str, method: str = "lora") -> list[tuple[str, int]]:
        return [(one.rate, one.seed) for one in trials(task, method)]

    assert chosen("cb") == [("low", 1)]
    assert chosen("boolq") == []
    write("low", 0.5)
    write("mid", 0.7)
    assert chosen("cb") == [("low", 1), ("mid", 1), ("high", 1)]
    write("high", 0.6)
    assert chosen("cb") == [("low", 1), ("mid", 1), ("high", 1), ("mid", 2), ("mid", 3)]
    assert chosen("boolq") == [("mid", 1), ("mid", 2), ("mid", 3)]
    assert "| lora | – | 30.0 (n = 1) |" in table()
    write("high", 0.8)
    assert chosen("cb")[-1] == ("top", 1), "the highest rate was best, and a higher one may be better"
    write("top", 0.8)
    assert chosen("cb")[4:] == [("high", 2), ("high", 3)]
    assert chosen("rte", "multimask_open") == [], "it takes the rate that multimask chose"


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
