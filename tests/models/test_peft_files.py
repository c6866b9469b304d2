"""LoRA and (IA)3 in peft's own format: peft loads it without us, and gives the same logits."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import read_adapter, save_adapter
from mmpt.models.backbone import CLASSES, Backbone
from mmpt.models.engine import build_engine
from tests import tiny_encoders as encoders
from tests.tiny import backbone, batch
from tests.tolerance import assert_close, terms_of

METHODS: dict[str, dict[str, Any]] = {"lora": {"r": 4, "alpha": 6.0}, "ia3": {}}
FAMILIES = ("t5", "bart", "gpt2", "llama")


def plain(one: Backbone) -> PreTrainedModel:
    """The same weights in transformers' own model."""
    model = CLASSES[one.kind].from_config(deepcopy(one.model.config), attn_implementation="sdpa")
    model.load_state_dict(one.model.state_dict())
    return model.eval()


def logits(model: Any, family: str) -> torch.Tensor:
    """Of a batch, as transformers' model gives them."""
    ids, mask, labels = batch()
    more = {"labels": labels.clamp(min=0)} if family in ("t5", "bart") else {}
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=mask, **more).logits
    return found


def trained(one: Backbone, method: str) -> AdaptedModel:
    torch.manual_seed(2)
    model = build_engine(one, parse(method, METHODS[method])).eval()
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_what_a_run_saves(method: str, family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base = plain(backbone(family))
    model = trained(backbone(family), method)
    before, wanted = logits(base, family), logits(model.backbone, family)
    description = {"backbone": {"source": "hub", "path": "owner/name", "revision": "a" * 40}}
    save_adapter(tmp_path, model.method, description)
    loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    found = logits(loaded, family)
    assert_close(found, wanted, terms_of(base))
    assert (wanted - before).abs().max() > 1e-2
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["peft_type"] == method.upper() and config["base_model_name_or_path"] == "owner/name"
    assert config["inference_mode"] and config["revision"] == "a" * 40
    assert read_adapter(tmp_path).method == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", encoders.ENCODERS)
def test_peft_loads_a_classification_head_too(method: str, family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base = plain(encoders.backbone(family))
    model = trained(encoders.backbone(family), method)
    given = encoders.batch()
    with torch.no_grad():
        wanted = model.start(given).states
        before = base(**sources(given, base)).logits
        save_adapter(tmp_path, model.method, {})
        found = PeftModel.from_pretrained(base, str(tmp_path)).eval()(**sources(given, base)).logits
    assert_close(found, wanted, terms_of(base))
    assert (wanted - before).abs().max() > 1e-2


def sources(given: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A batch without what transformers' model doesn't take, such as types of tokens where it has one alone."""
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    return {name: given[name] for name in ("input_ids", "attention_mask", *(["token_type_ids"] if typed else []))}


def test_other_methods_write_no_files_of_pefts(tmp_path: Path) -> None:
    save_adapter(tmp_path, build_engine(backbone(), parse("prefix", {})).method, {})
    assert {path.name for path in tmp_path.iterdir()} == {"adapter.json", "adapter.safetensors"}
