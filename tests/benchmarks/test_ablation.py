"""Settings by name, from a sweep's own record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ablation
from mmpt.sweep.ledger import FOLDER, Ledger, Outcome
from tests.report.builder import result


def record(root: Path, folder: str, *trials: tuple[str, str, float]) -> None:
    ledger = Ledger(root / FOLDER / folder)
    ledger.folder.mkdir(parents=True)
    for number, (setting, task, score) in enumerate(trials):
        content = result("multimask", 1, score, task)
        words = f"setting=improve/{setting} task={task} seed=1"
        ledger.add(Outcome(number, words, "done", result=content))


def test_the_last_word_on_a_trial_counts_and_incomplete_settings_dont(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results")
    record(tmp_path, "1", ("whole", "rte", 0.1), ("whole", "cb", 0.8), ("wide", "rte", 0.6), ("wide", "cb", 0.6))
    record(tmp_path, "2", ("whole", "rte", 0.9), ("sharp", "rte", 0.99))
    ablation.main([str(tmp_path), "--name", "toy"])
    text = (tmp_path / "results" / "toy.md").read_text()
    assert "| whole | 100 | 60.0 | 85.0 | 60.0 / 80.0 | 60.0 / 90.0 |" in text and "sharp" not in text
    assert capsys.readouterr().out.strip() in text
    trials = json.loads((tmp_path / "results" / "toy.json").read_text())["trials"]
    assert set(trials) == {"whole", "wide", "sharp"}
