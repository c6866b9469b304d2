"""Means over tasks of a comparison: against numbers worked out by hand, on run directories with chosen scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import compare
from mmpt.errors import RunError
from mmpt.report.groups import Row, group
from mmpt.report.load import load
from tests.report.builder import write

GOOD, BAD = [True] * 30 + [False] * 10, [True] * 20 + [False] * 20
SCORES = {("rte", 1): 0.6, ("rte", 2): 0.7, ("cb", 1): 0.8, ("cb", 2): 0.9}


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    for (task, seed), score in SCORES.items():
        write(tmp_path, "prefix", seed=seed, task=task, score=score, answers=BAD)
        write(tmp_path, "smop", seed=seed, task=task, score=score + 0.05 * seed, answers=GOOD if task == "cb" else BAD)
    return group(load([tmp_path]).runs)


def test_means_over_tasks_are_of_each_seed(rows: list[Row]) -> None:
    listed = {one.label: one for one in compare.overall(rows, "prefix")}
    assert listed["prefix"].test.mean == pytest.approx(0.75) and listed["prefix"].by_seed is None
    assert listed["prefix"].test.sd == pytest.approx(0.1 / 2**0.5)  # of 0.7 and 0.8
    smop = listed["smop"]
    assert smop.by_seed and smop.by_seed.difference == pytest.approx(0.075)
    assert smop.by_example and smop.by_example.difference == pytest.approx(0.125)  # 10 of 40 on one of two tasks
    assert smop.by_example.low is not None and smop.by_example.low > 0 and smop.p_example == smop.by_example.p < 0.01


def test_a_row_that_lacks_a_run_is_left_out(rows: list[Row], tmp_path: Path) -> None:
    write(tmp_path, "lora", seed=1, task="rte", answers=GOOD)
    found = compare.overall(group(load([tmp_path]).runs), "prefix")
    assert {one.label for one in found} == {"prefix", "smop"}
    with pytest.raises(RunError, match="complete are prefix, smop"):
        compare.overall(group(load([tmp_path]).runs), "lora")


def test_settings_of_a_method_are_named_by_what_is_unusual(tmp_path: Path) -> None:
    for name, std in (("a", 0.5), ("b", 0.5), ("c", 2.0)):
        more = {"method.init": "zero"} if name == "b" else {"method.init": "random"}
        write(tmp_path, "multimask", name=name, settings={"method.init_std": std, **more})
    found = group(load([tmp_path]).runs)
    assert sorted(compare.labels(found)) == ["multimask", "multimask init=zero", "multimask init_std=2.0"]


def test_both_files_are_written(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "RESULTS", tmp_path / "results")
    assert compare.main([str(tmp_path), "--name", "toy"]) == 0
    content = json.loads((tmp_path / "results" / "toy.json").read_text())
    assert {row["label"] for row in content["rows"]} == {"prefix", "smop"}
    assert content["rows"][0]["scores"]["test"].keys() == {"1", "2"}
    text = (tmp_path / "results" / "toy.md").read_text()
    assert "| smop | 2 | 100 | 60.0 ± 0.0 | 82.5 ± " in text and capsys.readouterr().out in text
    assert compare.main([str(tmp_path), "--name", "toy", "--baseline", "full"]) == 2
