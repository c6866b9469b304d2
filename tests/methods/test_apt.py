"""Adaptive prefix tuning against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmpt.errors import ModelError
from mmpt.methods import parse
from mmpt.models.engine import build_engine
from tests.methods.test_all import opened
from tests.rows import TERMS
from tests.tiny import adapted, backbone, batch
from tests.tolerance import assert_close


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("site", ["encoder", "decoder", "cross"])
def test_equal_gates_make_it_prefix_tuning(site: str, attention: str) -> None:
    """W = 0 halves keys and values of every token, and λ scales those of its layer."""
    model = adapted("apt", {"sites": [site], "num_virtual_tokens": 4}, attention=attention).eval()
    plain = adapted("prefix", {"sites": [site], "num_virtual_tokens": 4}, attention=attention).eval()
    method: Any = model.method
    layers = len(method.layer_gates[site])
    with torch.no_grad():
        method.layer_gates[site].copy_(torch.arange(1.0, layers + 1))
        scale = method.layer_gates[site].repeat_interleave(2)[:, None]  # keys and values of each layer
        table = method.prefix[site].view(4, 2 * layers, -1)
        plain.method.prefix[site].copy_((0.5 * scale * table).flatten(1))
        assert_close(model.logits(*batch()), plain.logits(*batch()), TERMS)


def test_each_query_has_gates_from_its_own_state() -> None:
    """The first layer's attention to the prefix, worked out by hand, with one head."""
    built = backbone(num_heads=1, d_kv=24, num_decoder_layers=1)
    torch.manual_seed(1)
    model = opened(build_engine(built, parse("apt", {"sites": ["decoder"], "num_virtual_tokens": 2}))).eval()
    module, method = model.injection.modules["decoder"][0], model.method
    seen: dict[str, torch.Tensor] = {}
    module.register_forward_pre_hook(lambda _, args, kwargs: seen.update(hidden=args[0]), with_kwargs=True)
    module.o.register_forward_pre_hook(lambda _, args: seen.update(context=args[0]))
    with torch.no_grad():
        model.logits(*batch())
        hidden = seen["hidden"]  # (B, U, d)
        gates = torch.sigmoid(hidden @ method.token_gates["decoder"][0])  # (B, U, S)
        assert gates.std(dim=1).max() > 0.01
        key, value = method.prefix["decoder"].view(2, 2, 24).unbind(1)
        query, targets = module.q(hidden), hidden.shape[1]
        after = query @ module.k(hidden).transpose(1, 2) + module.compute_bias(targets, targets)[0]
        after = after.masked_fill(torch.ones(targets, targets).triu(1).bool(), float("-inf"))
        weights = torch.softmax(torch.cat([gates * (query @ key.T), after], dim=-1), dim=-1)
        wanted = (gates * weights[..., :2]) @ value + weights[..., 2:] @ module.v(hidden)
        assert_close(seen["context"], wanted, TERMS)


def test_no_state_outlives_its_pass() -> None:
    model = adapted("apt", {"sites": ["encoder", "decoder", "cross"]})
    model(*batch()).loss.backward()
    kept = [module for found in model.injection.modules.values() for module in found if "_mmpt_hidden" in vars(module)]
    assert not kept


@pytest.mark.parametrize("model_type", ["bart", "gpt2", "llama", "qwen2", "gemma"])
def test_other_architectures_have_it_too(model_type: str) -> None:
    """Rotary positions, keys that queries share, a sliding window: with W = 0 it is prefix tuning at half scale."""
    options = {"num_virtual_tokens": 4}
    model, plain = (adapted(method, options, model_type=model_type).eval() for method in ("apt", "prefix"))
    ids, mask, labels = batch()
    with torch.no_grad():
        for site, table in plain.method.prefix.items():
            table.copy_(0.5 * model.method.prefix[site])
        assert_close(model.logits(ids, mask, labels), plain.logits(ids, mask, labels), TERMS)
        together = opened(model).logits(ids, mask, labels)
        assert not torch.allclose(together, plain.logits(ids, mask, labels), atol=1e-3)
        length, target = int(mask[1].sum()), int((labels[1] != -100).sum())
        alone = model.logits(ids[1:2, :length], mask[1:2, :length], labels[1:2, :target])
        assert_close(alone[0], together[1, :target], TERMS)


def test_capped_scores_are_refused() -> None:
    model = adapted("apt", {"num_virtual_tokens": 2}, model_type="gemma2", attention="eager")
    with pytest.raises(ModelError, match="attention scores are capped"):
        model.logits(*batch())
