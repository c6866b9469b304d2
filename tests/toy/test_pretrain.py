"""Pre-training: runs, resumes to the same numbers, stops where a skill is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, T5ForConditionalGeneration

from mmpt.errors import ModelError, TrainingError
from tools.toy import curriculum, lexicon, pretrain, skills, vocabulary

PLAN = curriculum.Plan(steps=6, batch=8)


def weights(trainer: pretrain.Trainer) -> torch.Tensor:
    """All weights in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def test_a_small_course_ends_with_a_loadable_toy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pretrain", "--out", str(tmp_path), "--steps", "4", "--batch", "4"])
    pretrain.main()
    told = capsys.readouterr().out
    assert "step 4/4" in told and "compare" in told
    assert T5ForConditionalGeneration.from_pretrained(tmp_path).config.d_model == 128
    assert AutoTokenizer.from_pretrained(tmp_path)("dog").input_ids[-1] == 1
    assert "4 steps" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_an_interrupted_course_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = pretrain.Trainer(tmp_path / "whole", PLAN)
    whole.out.mkdir()
    whole.run(minutes=None)
    first = pretrain.Trainer(tmp_path / "cut", PLAN)
    first.out.mkdir()
    first.run(minutes=0.0)
    assert 0 < first.step < PLAN.steps
    second = pretrain.Trainer(tmp_path / "cut", PLAN)
    assert second.step == first.step
    second.run(minutes=None)
    assert second.step == PLAN.steps
    assert torch.equal(weights(second), weights(whole))


def test_a_checkpoint_of_another_course_is_refused(tmp_path: Path) -> None:
    pretrain.Trainer(tmp_path, PLAN).save()
    with pytest.raises(ModelError, match="belongs to another curriculum"):
        pretrain.Trainer(tmp_path, curriculum.Plan(steps=6, batch=4))


def test_a_missed_gate_names_the_skill_and_the_share() -> None:
    scores = dict.fromkeys((name for _, name, _ in curriculum.GATES), 0.1)
    curriculum.check_gates(scores, step=0)
    with pytest.raises(TrainingError, match='"plain" is answered right in 10%, at least 80%'):
        curriculum.check_gates(scores, step=10**6)


def test_the_rate_warms_up_and_cools_down() -> None:
    plan = curriculum.Plan(steps=1000, warmup=10, cool=0.2)
    rates = [plan.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(plan.lr / 10)
    assert rates[500] == plan.lr
    assert 0 < rates[999] < plan.lr / 100


def test_a_vocabulary_is_trained_the_same_twice(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="only training a vocabulary needs it")
    for name in ("one", "two"):
        tokenizer = vocabulary.train(tmp_path / name)
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    words = (*lexicon.words(), *skills.VERDICTS)
    assert [word for word in words if len(tokenizer(word, add_special_tokens=False).input_ids) != 1] == []
