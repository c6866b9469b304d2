"""Prefix-Tuning+ against its formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mmpt.methods import parse
from mmpt.models.engine import build_engine
from tests.methods.test_all import opened
from tests.rows import assert_rows_are_independent, logits
from tests.tiny import adapted, backbone, batch
from tests.tolerance import assert_close, terms_of


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", ["t5", "bart", "gpt2", "llama", "gemma3_text"])
def test_it_starts_as_the_backbone_itself(model_type: str, attention: str) -> None:
    found, plain = (
        adapted(method, model_type=model_type, attention=attention).eval() for method in ("prefix_plus", "full")
    )
    assert_close(logits(found, *batch()), logits(plain, *batch()), terms_of(plain))
    assert_rows_are_independent(opened(found))
    assert not torch.allclose(logits(found, *batch()), logits(plain, *batch()), atol=1e-3)


def test_a_memory_is_read_outside_the_softmax() -> None:
    """The first layer's attention worked out by hand, with one head."""
    built = backbone(num_heads=1, d_kv=24, num_decoder_layers=1)
    model = opened(build_engine(built, parse("prefix_plus", {"sites": ["decoder"]}))).eval()
    module: Any = model.injection.modules["decoder"][0]
    seen: dict[str, torch.Tensor] = {}
    module.register_forward_pre_hook(lambda _, args, kwargs: seen.update(hidden=args[0]), with_kwargs=True)
    module.o.register_forward_pre_hook(lambda _, args: seen.update(context=args[0]))
    with torch.no_grad():
        model.logits(*batch())
        hidden = seen["hidden"]  # (B, U, d)
        query, targets = module.q(hidden), hidden.shape[1]
        scores = query @ module.k(hidden).transpose(1, 2) + module.compute_bias(targets, targets)[0]
        scores = scores.masked_fill(torch.ones(targets, targets).triu(1).bool(), float("-inf"))
        wanted = torch.softmax(scores, dim=-1) @ module.v(hidden)
        wanted = wanted + torch.nn.functional.elu(query) @ model.method.memory["decoder"][0, 0]
        assert_close(seen["context"], wanted, terms_of(module))


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_absorbed_cross_attention_has_it_too(model_type: str) -> None:
    models = []
    for mode in ("projected", "absorbed"):
        torch.manual_seed(1)
        built = replace(backbone(model_type), cross_attention=mode)
        models.append(opened(build_engine(built, parse("prefix_plus", {"sites": ["cross"]}))).eval())
    projected, absorbed = models
    assert_close(logits(absorbed, *batch()), logits(projected, *batch()), terms_of(projected))
