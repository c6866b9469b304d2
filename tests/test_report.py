"""The table of runs: seeds averaged, what is no repetition refused, what isn't done named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.report import main


def write(root: Path, method: str, number: int, score: float, **more: Any) -> None:
    directory = root / f"{method}-{number}"
    directory.mkdir(parents=True)
    result = {
        "task": "rte",
        "model": "bundled",
        "method": method,
        "seed": number,
        "metric": "accuracy",
        "scores": {"test": {"accuracy": score}, "majority": {"accuracy": 0.53}},
        "parameters": {"trainable": 100},
        "timing": {"step_ms_median": 10.0, "train_s": 5.0},
        "data_fingerprint": "d",
        "backbone_fingerprint": "b",
        **more,
    }
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "status.json").write_text(json.dumps({"status": "done"}))


def test_seeds_are_averaged_and_the_best_is_bold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, score in ((1, 0.7), (2, 0.8), (3, 0.9)):
        write(tmp_path / "runs", "prefix", seed, score)
        write(tmp_path / "runs", "smop", seed, 0.6)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "all.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "| prefix | 100 | **0.800** ± 0.100 | 3 | 0.530 |" in told
    assert "| smop | 100 | 0.600 ± 0.000 | 3 |" in told
    assert main([str(tmp_path / "all.jsonl")]) == 0
    assert capsys.readouterr().out == told


def test_a_failed_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "prefix", 1, 0.7)
    write(tmp_path, "prefix", 2, 0.7)
    (tmp_path / "prefix-2" / "status.json").write_text('{"status": "failed", "error": {"message": "loss is nan"}}')
    assert main([str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "**0.700**" in told.out
    assert "not done: prefix-2: failed loss is nan" in told.err


@pytest.mark.parametrize("change", [{"data_fingerprint": "x"}, {"backbone_fingerprint": "x"}, {"seed": 1}])
def test_what_is_no_repetition_is_not_averaged(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "prefix", 1, 0.7)
    write(tmp_path, "prefix", 2, 0.7, **change)
    assert main([str(tmp_path)]) == 2
    assert "report them apart" in capsys.readouterr().err


def test_no_runs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
