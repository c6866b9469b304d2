"""The shipped toy: loads, is trained, is small, knows its skills, and says that it is a toy."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoTokenizer, T5ForConditionalGeneration

from mmpt.bundled import MODEL_DIR
from tools.toy import curriculum


@pytest.fixture(scope="module")
def model() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration.from_pretrained(MODEL_DIR).eval()


def test_shape_and_ties(model: T5ForConditionalGeneration) -> None:
    config = model.config
    assert (config.model_type, config.d_model, config.num_layers, config.num_decoder_layers) == ("t5", 128, 3, 2)
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)
    assert model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr()
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(MODEL_DIR))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_what_ships_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in MODEL_DIR.parent.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 10e6
    assert sizes["model.safetensors"] < 4.2e6


def test_notes_say_toy_synthetic_and_how_trained() -> None:
    note = json.loads((MODEL_DIR / "training.json").read_text(encoding="utf-8"))
    assert note["synthetic"] is True and note["trained"] is True and note["steps"] > 1000
    readme = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert "toy" in readme and "synthetic" in readme and f"{note['steps']} steps" in readme


def test_skills_are_those_stated(model: T5ForConditionalGeneration) -> None:
    note = json.loads((MODEL_DIR / "training.json").read_text(encoding="utf-8"))
    skills = curriculum.Curriculum(AutoTokenizer.from_pretrained(MODEL_DIR), curriculum.Plan())
    scores = curriculum.probe(model, skills, size=100)
    for name in ("link", "plain", "compare", "senses", "three"):
        assert scores[name] > 0.85, name
        assert abs(scores[name] - note["skills"][name]) < 0.1, name
