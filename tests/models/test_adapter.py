"""Saved adapters: bit-equal after loading, and whatever is wrong with a file is told, never used."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.errors import AdapterError, RunError
from mmpt.methods import parse
from mmpt.models.adapter_files import load_state, read_adapter, read_state, save_adapter, serialised
from mmpt.models.engine import build_engine
from tests.methods.test_all import CASES, case
from tests.tiny import backbone, batch


@pytest.mark.parametrize("name", CASES)
def test_saved_and_loaded_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    model = case(name).eval()
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        before = model.logits(*batch())
    size = save_adapter(tmp_path / "adäpter", model.method, {})
    assert size == (tmp_path / "adäpter" / "adapter.safetensors").stat().st_size
    adapter = read_adapter(tmp_path / "adäpter")
    again = build_engine(backbone(), parse(adapter.method, adapter.options), initialise=False).eval()
    load_state(again.method, adapter.state, "here")
    with torch.no_grad():
        assert torch.equal(again.logits(*batch()), before)


def saved(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "adapter", case("prefix-cross").method, {"x": 1})
    return tmp_path / "adapter"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"prefix.cross": [1.0]}))


@pytest.mark.parametrize(
    ("name", "damage", "word"),
    [
        ("adapter.safetensors", truncate, "missing or damaged"),
        ("adapter.safetensors", flip, "checksum"),
        ("adapter.safetensors", pickled, "missing or damaged"),
        ("adapter.safetensors", lambda path: path.write_bytes(b""), "missing or damaged"),
        ("adapter.safetensors", Path.unlink, "holds no finished adapter"),
        ("adapter.json", truncate, "damaged"),
        ("adapter.json", lambda path: path.write_text("[]"), "damaged"),
        ("adapter.json", lambda path: path.write_text('{"method": 3}'), "damaged"),
        ("adapter.json", Path.unlink, "holds no finished adapter"),
    ],
)
def test_damage_is_told(tmp_path: Path, name: str, damage: Any, word: str) -> None:
    directory = saved(tmp_path)
    damage(directory / name)
    with pytest.raises(AdapterError, match=word):
        read_adapter(directory)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    content = json.loads((directory / "adapter.json").read_text())
    (directory / "adapter.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(AdapterError, match=r"format 99.*update mmpt"):
        read_adapter(directory)


def test_another_method_or_backbone_is_refused(tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path))
    with pytest.raises(AdapterError, match=r"prefix\.cross is only on one side"):
        load_state(case("prefix-decoder").method, {"prefix.cross": adapter.state["prefix.cross"]}, "here")
    with pytest.raises(AdapterError, match=r"shape \(10, 144\)"):
        load_state(case("prefix-cross", num_virtual_tokens=3).method, adapter.state, "here")


def test_a_checkpoint_keeps_what_an_adapter_folds(tmp_path: Path) -> None:
    model = case("prefix-mlp")
    (tmp_path / "x.safetensors").write_bytes(serialised(dict(model.method.named_parameters())))
    state = read_state(tmp_path / "x.safetensors")
    assert set(state) == {name for name, _ in model.method.named_parameters()}
    options, folded = model.method.folded()
    assert options.reparametrization == "none"
    assert set(folded) == {"prefix.encoder", "prefix.decoder", "prefix.cross"}


def test_no_room_is_told_and_the_old_file_stays(tmp_path: Path) -> None:
    model = case("prefix-cross")
    save_adapter(tmp_path, model.method, {})
    before = (tmp_path / "adapter.safetensors").read_bytes()
    with pytest.raises(RunError, match="cannot write"):
        save_adapter(tmp_path / "adapter.safetensors" / "below", model.method, {})
    assert (tmp_path / "adapter.safetensors").read_bytes() == before
