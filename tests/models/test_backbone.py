"""Loading backbones: what is not what it says is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmpt.bundled import MODEL_DIR
from mmpt.config.schema import ModelConfig
from mmpt.errors import ModelError
from mmpt.models.backbone import load_backbone, use_threads


def config(**values: Any) -> ModelConfig:
    return ModelConfig(**{"name": "mine", "source": "path", **values})


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "mödel dir"))


def test_bundled_and_its_copy_are_one_backbone(copied: Path) -> None:
    bundled, copy = load_backbone(ModelConfig("bundled")), load_backbone(config(path=str(copied)))
    assert bundled.fingerprint == copy.fingerprint
    assert not bundled.model.training
    assert not any(parameter.requires_grad for parameter in bundled.model.parameters())
    assert "toy" in bundled.origin


def test_random_weights_are_drawn_by_their_own_seed() -> None:
    shape = {"d_model": 16, "d_kv": 4, "num_heads": 2, "d_ff": 16, "num_layers": 1, "vocab_size": 1200}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_backbone(config(source="random", config=shape))
    assert torch.equal(torch.get_rng_state(), before), "the run's random state moved"
    assert first.fingerprint == load_backbone(config(source="random", config=shape)).fingerprint


def test_no_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no directory"):
        load_backbone(config(path=str(tmp_path / "none")))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_backbone(config(path=str(tmp_path)))


def test_another_architecture_than_stated_is_told(copied: Path) -> None:
    with pytest.raises(ModelError, match=r"holds a 't5' model, but model\.architecture=mt5"):
        load_backbone(config(path=str(copied), architecture="mt5"))


def test_what_cannot_be_injected_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    with pytest.raises(ModelError, match=r"'deberta-v2' models cannot carry prefixes.*t5, mt5, umt5"):
        load_backbone(config(path=str(tmp_path), architecture="deberta-v2"))


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\x80\x04."])
def test_damaged_weights_are_told(copied: Path, content: bytes) -> None:
    (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        load_backbone(config(path=str(copied)))


def test_pickled_weights_are_never_read(copied: Path) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_backbone(config(path=str(copied)))


def test_missing_weights_are_named(copied: Path) -> None:
    state = load_file(copied / "model.safetensors")
    del state["decoder.block.0.layer.1.EncDecAttention.k.weight"]
    save_file(state, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights.*EncDecAttention\.k"):
        load_backbone(config(path=str(copied)))


def test_no_hub_is_told_with_what_works_without() -> None:
    with pytest.raises(ModelError, match=r"cannot be fetched from the hub.*model=bundled"):
        load_backbone(config(source="hub", path="google-t5/t5-base"))


def test_small_models_have_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = torch.nn.Linear(2, 2), torch.nn.Linear(2500, 2500)
    monkeypatch.setattr("mmpt.models.backbone._THREADS", 2)
    torch.set_num_threads(2)
    use_threads(small)
    assert torch.get_num_threads() == 2  # OMP_NUM_THREADS is set for the tests
    monkeypatch.delenv("OMP_NUM_THREADS")
    use_threads(small)
    assert torch.get_num_threads() == 1
    use_threads(large)
    assert torch.get_num_threads() == 2
