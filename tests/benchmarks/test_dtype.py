"""Pairs of runs in two types: against numbers worked out by hand, and the whole command on one task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import dtype, setting
from mmpt.errors import RunError
from tests.report.builder import write

SCORES = {"float32": (0.60, 0.70, 0.80), "bfloat16": (0.61, 0.70, 0.84)}  # by seed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for kind, scores in SCORES.items():
        for seed, score in enumerate(scores, start=1):
            for method in dtype.METHODS:
                more = {"name": f"{method}-{seed}-{kind}", "settings": {"model.dtype": kind}}
                write(tmp_path / "runs", method, seed, score if method != "lora" else 0.5, **more)
    return tmp_path / "runs"


def test_differences_are_of_the_same_task_method_and_seed(root: Path) -> None:
    rows = dtype.pairs(root, ["rte"], [1, 2, 3])
    assert [row["difference"] for row in rows if row["method"] == "prefix"] == pytest.approx([1.0, 0.0, 4.0])
    lines = {line["method"]: line for line in dtype.summary(rows)}
    assert lines["prefix"]["difference"] == pytest.approx(5 / 3) and lines["all"]["pairs"] == 9
    half = 4.302653 * (13 / 3) ** 0.5 / 3**0.5  # Student's t with 2 degrees of freedom, times the standard error
    assert lines["prefix"]["high"] - lines["prefix"]["difference"] == pytest.approx(half, rel=1e-6)
    assert lines["prefix"]["sd of seeds"] == pytest.approx(10.0) and lines["lora"]["p"] is None
    assert lines["all"]["difference"] == pytest.approx(10 / 9)


def test_a_missing_or_repeated_run_is_named(root: Path) -> None:
    with pytest.raises(RunError, match=r"lacks task, method, seed \('rte', 'prefix', 4\) in float32"):
        dtype.pairs(root, ["rte"], [1, 4])
    write(root, "prefix", 1, 0.9, name="another", settings={"model.dtype": "bfloat16", "trainer.max_steps": 5})
    with pytest.raises(RunError, match=r"two runs of task, method, seed \('rte', 'prefix', 1\) in bfloat16"):
        dtype.pairs(root, ["rte"], [1])


def test_the_command_trains_compares_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setting, "RESULTS", tmp_path / "results")
    words = ["--tasks", "cb", "--seeds", "1", "--quick", "--root", str(tmp_path / "runs")]
    assert dtype.main(words) == 0
    found = json.loads((tmp_path / "results" / "dtype.json").read_text())
    assert [row["method"] for row in found["rows"]] == dtype.METHODS and found["machine"]["cores"]
    assert [line["pairs"] for line in found["summary"]] == [1, 1, 1, 3]
    assert all(0.99 < float(line["cosine"]) < 1 for line in found["cosine"])
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")}
    assert len(finished) == 6
    assert dtype.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")} == finished
    assert json.loads((tmp_path / "results" / "dtype.json").read_text())["rows"] == found["rows"]
