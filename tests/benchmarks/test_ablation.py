"""Settings by name, from the values of run directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ablation
from tests.report.builder import write

SETTINGS = {  # of sweeps/ablate.yaml
    "whole": {},
    "two_routes": {"method.num_routes": 2},
    "no_noise": {"method.perturb_router": False, "method.router_dropout": 0.0},
}


def run(root: Path, setting: str, task: str, score: float, seed: int = 1) -> None:
    scores = {split: {"accuracy": score, "decoding": "ranking"} for split in ("validation", "test")}
    settings = {"method.perturb_router": True, "method.router_dropout": 0.1, "method.num_routes": 4}
    settings |= SETTINGS[setting]
    write(root, "multimask", seed, score, task=task, settings=settings, scores=scores, name=f"{setting}-{task}-{seed}")


def test_settings_are_named_by_values_and_incomplete_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results")
    for setting, task, score in (("whole", "rte", 0.9), ("whole", "cb", 0.8), ("two_routes", "rte", 0.6)):
        run(tmp_path, setting, task, score)
    run(tmp_path, "two_routes", "cb", 0.6)
    run(tmp_path, "no_noise", "rte", 0.99)
    ablation.main([str(tmp_path), "--name", "toy", "--sweep", "ablate"])
    text = (tmp_path / "results" / "toy.md").read_text()
    lines = [line.split("|")[1:6] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["whole", "100", "85.0", "85.0", "80.0 / 80.0"],
        ["two_routes", "100", "60.0", "60.0", "60.0 / 60.0"],
    ]
    assert capsys.readouterr().out.strip() in text
    trials = json.loads((tmp_path / "results" / "toy.json").read_text())["trials"]
    assert set(trials) == {"whole", "two_routes", "no_noise"}
