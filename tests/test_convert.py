"""Plain prefixes of decoder-only models to and from peft's format: peft and we give the same logits."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import mmpt
from mmpt.errors import AdapterError, ConfigError
from mmpt.interop.convert import prefix_tensor, read_prefix, write_prefix
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import CLASSES, Backbone
from mmpt.models.engine import build_engine
from tests.commands import convert as main
from tests.tiny import adapted, backbone, batch
from tests.tolerance import assert_close, tolerance

ROTARY = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
LEARNT = ("gpt2", "opt")
WIDE = {"sliding_window": 64}  # a window that slides leaves peft's prefix behind, but not ours
TERMS = 1_000  # what a value passes in the largest of these models


def tiny(family: str) -> Backbone:
    """A backbone of a family; peft works out the heads' width as hidden size by heads."""
    shape: dict[str, Any] = {} if family in LEARNT else {"hidden_size": 32}
    return backbone(family, **shape, **(WIDE if family in ("qwen2", "qwen3", "gemma2", "gemma3_text") else {}))


def prefixed(family: str, **options: Any) -> tuple[Backbone, AdaptedModel]:
    one = tiny(family)
    torch.manual_seed(3)
    return one, build_engine(one, parse("prefix", {"num_virtual_tokens": 4, **options})).eval()


def plain(one: Backbone) -> PreTrainedModel:
    """The same weights on transformers' own attention."""
    model = CLASSES[one.kind].from_config(deepcopy(one.model.config), attn_implementation="eager")
    state = one.model.state_dict()
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("mmpt_adapters.")})
    return model.eval()


def in_peft(one: Backbone, directory: Path) -> Any:
    """peft's model with an adapter."""
    from peft import PeftModel

    return PeftModel.from_pretrained(plain(one), str(directory)).eval()


def text() -> tuple[Tensor, Tensor]:
    ids, mask, _ = batch(4, longest=8)
    return ids, mask


def ours(model: AdaptedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits of all tokens."""
    with torch.no_grad(), model.hooks.using(model.method):
        logits: Tensor = model.backbone(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits


def alike(found: Tensor, wanted: Tensor, mask: Tensor) -> bool:
    """Whether logits of the tokens that aren't padding are equal up to rounding."""
    real = mask.bool()
    return float((found - wanted)[real].abs().max()) <= tolerance(wanted[real], TERMS)


def export(one: Backbone, model: AdaptedModel, directory: Path) -> None:
    shape = model.injection.shapes["self"]
    write_prefix(directory, prefix_tensor(one, model, "here"), shape.layers, shape.heads, {})


@pytest.mark.parametrize("family", [*LEARNT, *ROTARY])
@pytest.mark.parametrize("layout", ["peft", "per_layer"])
def test_exported_gives_the_same_logits_in_peft(family: str, layout: str, tmp_path: Path) -> None:
    one, model = prefixed(family, layout=layout, mask="single")
    if layout == "per_layer" and family in LEARNT:
        with pytest.raises(AdapterError, match=f"learnt positions of {family} cannot make up.*layout=peft"):
            export(one, model, tmp_path)
        return
    export(one, model, tmp_path)
    ids, mask = text()
    wanted = ours(model, ids, mask)
    with torch.no_grad():
        assert alike(in_peft(one, tmp_path)(input_ids=ids, attention_mask=mask).logits, wanted, mask)
        with mmpt.disable_adapter(one.model):
            without = one.model(input_ids=ids, attention_mask=mask).logits
    assert (wanted - without).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "gemma3_text"])
def test_imported_gives_pefts_logits(family: str, tmp_path: Path) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    one = tiny(family)
    torch.manual_seed(5)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    theirs = get_peft_model(plain(one), config).eval()
    theirs.save_pretrained(str(tmp_path))
    tensor = read_prefix(tmp_path)
    model = build_engine(one, parse("prefix", {"num_virtual_tokens": len(tensor), "layout": "peft"})).eval()
    model.method.prefix["self"].data.copy_(tensor)
    ids, mask = text()
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=mask).logits
    assert alike(ours(model, ids, mask), wanted, mask)
    assert model.injection.positions is not None
    shifted = ours(build_engine(one, parse("prefix", {"num_virtual_tokens": 5, "init": "zero"})), ids, mask)
    assert not alike(shifted, wanted, mask)  # the shift goes with its prefix


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_shift_holds_for_labels_and_for_generation(family: str) -> None:
    _, model = prefixed(family, layout="peft")
    ids, mask, labels = batch(4)
    with torch.no_grad():
        together = model.logits(ids, mask, labels)
        row = torch.cat([ids[:1, : int(mask[0].sum())], labels[:1, :-1].clamp(min=0)], dim=1)
        whole = ours(model, row, torch.ones_like(row))[:, int(mask[0].sum()) - 1 :]
    count = int((labels[0] >= 0).sum())
    assert_close(together.view(4, -1, together.shape[-1])[0, :count], whole[0, :count], TERMS)
    options = {"max_new_tokens": 5, "do_sample": False}
    encoded = model.encode(ids, mask)
    assert torch.equal(model.generate(encoded, **options), model.generate(encoded, **options, use_cache=False))


def test_what_peft_cannot_express_is_refused(tmp_path: Path) -> None:
    for options in ({"gate": True}, {"layers": "last_1"}):
        one, model = prefixed("gpt2", layout="peft", **options)
        with pytest.raises(AdapterError, match="a gate, or no prefix in some layers"):
            export(one, model, tmp_path)
    for family, method in (("gpt2", "multimask"), ("gpt2", "prompt"), ("t5", "prefix")):
        one = backbone(family)
        with pytest.raises(AdapterError, match=r"no plain prefix|has no prefix"):
            prefix_tensor(one, build_engine(one, parse(method, {})), "here")
    with pytest.raises(ConfigError, match=r"layout=peft is peft's prefix tuning of decoder-only models"):
        adapted("prefix", {"layout": "peft"})


def test_damaged_or_foreign_files_are_told(tmp_path: Path) -> None:
    one, model = prefixed("gpt2", layout="peft")
    with pytest.raises(AdapterError, match=r"has no adapter_config\.json"):
        read_prefix(tmp_path)
    export(one, model, tmp_path)
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    blob = weights.read_bytes()
    weights.write_bytes(blob[:-9])
    with pytest.raises(AdapterError, match="damaged"):
        read_prefix(tmp_path)
    weights.write_bytes(blob)
    config.write_text(json.dumps({"peft_type": "LORA"}), encoding="utf-8")
    with pytest.raises(AdapterError, match="peft_type 'LORA'; only PREFIX_TUNING"):
        read_prefix(tmp_path)
    config.write_text("[]", encoding="utf-8")
    with pytest.raises(AdapterError, match="no JSON object"):
        read_prefix(tmp_path)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory with a model, peft's adapter of it, ours, and back."""
    from transformers import AutoTokenizer

    from mmpt.bundled import MODEL_DIR
    from mmpt.bundled.tasks import records

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    one = backbone("gpt2", vocab_size=len(tokenizer), n_positions=256)
    one.model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    model = build_engine(one, parse("prefix", {"num_virtual_tokens": 3, "layout": "peft"})).eval()
    export(one, model, tmp_path / "peft")
    words = ["task=rte", "model=local", f"model.path={tmp_path / 'gpt2'}"]
    assert main(["from-peft", str(tmp_path / "peft"), str(tmp_path / "run"), *words]) == 0, capsys.readouterr().err
    found = mmpt.load(tmp_path / "run").predict(records("rte")["test"][:2])
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in found)
    assert main(["to-peft", str(tmp_path / "run"), str(tmp_path / "back")]) == 0
    assert torch.equal(read_prefix(tmp_path / "back"), read_prefix(tmp_path / "peft"))
    assert main(["from-peft", str(tmp_path / "gone"), str(tmp_path / "run"), *words]) == 2
    assert "error: " in capsys.readouterr().err
