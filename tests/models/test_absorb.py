"""Absorbed cross attention is the same function: logits, losses and gradients."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmpt.attention import absorb
from mmpt.attention.absorb import attend, pays
from mmpt.attention.architectures import architecture_of
from mmpt.errors import ModelError
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.engine import build_engine
from tests.methods.test_all import CASES, opened
from tests.tiny import backbone, batch
from tests.tolerance import assert_close, terms_of

SHAPES: list[dict[str, Any]] = [{}, {"d_kv": 5}, {"d_kv": 16}]  # H·k equal to, below and above d (t5-3b has it above)


def both(name: str, attention: str = "sdpa", **shape: Any) -> tuple[AdaptedModel, AdaptedModel]:
    models = []
    for way in ("absorbed", "projected"):
        built = replace(backbone(attention=attention, **shape), cross_attention=way)
        torch.manual_seed(1)
        models.append(opened(build_engine(built, parse(*CASES[name]))))
    return models[0], models[1]


def assert_equal(name: str, **shape: Any) -> None:
    """Both ways give the same logits and gradients."""
    results = []
    for model in both(name, **shape):
        output = model.eval()(*batch())
        output.loss.backward()
        found = {key: p.grad for key, p in model.named_parameters() if p.requires_grad and p.grad is not None}
        results.append((model.logits(*batch()), found))
    (logits, grads), (wanted, wanted_grads) = results
    assert_close(logits, wanted, terms_of(model.backbone), name)
    assert grads.keys() == wanted_grads.keys()
    terms = terms_of(model.backbone, tokens=sum(part.numel() for part in batch()[1:]))
    for key, grad in grads.items():
        scale = 2e-2 if "layer_gates" in key else 1e-3  # a gate's gradient is a sum over its layer's whole prefix
        assert_close(grad, wanted_grads[key], terms, key, scale)


@pytest.mark.parametrize("name", [name for name in CASES if name != "lora"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_are_equal(name: str, shape: dict[str, Any]) -> None:
    assert_equal(name, **shape)


@pytest.mark.parametrize("name", ["prefix-cross", "multimask-all", "multimask-gate", "smop", "full"])
@pytest.mark.parametrize("model_type", ["bart", "pegasus"])
def test_scaling_and_biases_are_exact(model_type: str, name: str) -> None:
    assert_equal(name, model_type=model_type)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_cut_by_lengths_attends_as_a_whole_one(dtype: torch.dtype, constant: bool) -> None:
    built = backbone()
    module = built.model.bfloat16().to(dtype).decoder.block[0].layer[1].EncDecAttention
    names = architecture_of("t5")
    torch.manual_seed(0)
    states = torch.randn(20, 12, 24).bfloat16().to(dtype).requires_grad_(not constant)
    hidden = torch.randn(20, 3, 24).bfloat16().to(dtype).requires_grad_()
    mask = (torch.arange(12) < torch.tensor([2] * 8 + [5] * 8 + [12] * 4)[:, None])[:, None, None]
    results = []
    for cut in (mask, mask.expand(-1, 1, 3, -1), torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))):
        output = attend(module, names, hidden, states, cut.to(dtype) if cut.dtype != torch.bool else cut)
        leaves = [hidden] if constant else [hidden, states]
        results.append([output, *torch.autograd.grad(output.float().sin().sum(), leaves)])
    module.float()
    leaves = [part.detach().float().requires_grad_() for part in (hidden, states)]
    output = torch.cat([attend(module, names, *(part[[row]] for part in (*leaves, mask))) for row in range(20)])
    wanted = [output, *torch.autograd.grad(output.sin().sum(), leaves)]
    for found in results:
        for part, exact in zip(found, wanted, strict=False):
            # each product adds in float32 and rounds its result: 8 on the way there and back
            assert_close(part, exact.to(dtype), terms=8 if dtype == torch.bfloat16 else 4 * 24 + 12)


def test_constant_states_are_cut_once_and_freed_with_their_last_user() -> None:
    states, mask = torch.randn(16, 6, 4, dtype=torch.bfloat16), torch.ones(16, 1, 1, 6, dtype=torch.bool)
    mask[:8, ..., 2:] = False
    first, second = (absorb._chunks(mask, states) for _ in range(2))
    assert first is second and [part.shape[1] for _, part, _ in first] == [2, 6]
    assert absorb._chunks(mask.clone(), states) is not first
    gone = weakref.ref(states)
    gc.disable()  # no circle holds the states
    try:
        del states, first, second
        assert gone() is None
    finally:
        gc.enable()


def test_it_is_used_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    absorbed, projected = both("prefix-cross")
    projections = []
    for model in (absorbed, projected):
        count = [0]
        for module in model.injection.modules["cross"]:
            module.k.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        with torch.no_grad():
            model(*batch())
        projections.append(count[0])
    assert projections == [0, 3]


def test_other_implementations_agree() -> None:
    absorbed, projected = both("multimask-all", attention="eager")
    with torch.no_grad():
        found, wanted = (model.eval().logits(*batch()) for model in (absorbed, projected))
    assert_close(found, wanted, terms_of(absorbed.backbone))


def test_layers_that_an_adapter_wraps_are_left_alone() -> None:
    absorbed, projected = both("lora")
    with torch.no_grad():
        for model in (absorbed, projected):
            torch.manual_seed(2)
            for key, parameter in model.method.named_parameters():
                if "lora_B" in key:
                    parameter.normal_()
        assert torch.equal(absorbed.logits(*batch()), projected.logits(*batch()))


def test_generation_and_ranking_agree() -> None:
    ids, mask, _ = batch()
    found = []
    for model in both("multimask-all"):
        encoded = model.eval().encode(ids, mask)
        found.append(
            (model.generate(encoded, max_new_tokens=5, do_sample=False), model.rank(encoded, [[5, 1], [6, 7, 1]]))
        )
    assert torch.equal(found[0][0], found[1][0])
    assert_close(found[0][1], found[1][1], terms_of(model.backbone))


def test_other_architectures_are_left_alone_or_refused_by_name() -> None:
    built = backbone("umt5")
    with pytest.raises(ModelError, match=r"UMT5Attention is not known to absorb.*cross_attention=auto"):
        build_engine(replace(built, cross_attention="absorbed"), parse("prefix", {}))


def test_shapes_decide() -> None:
    assert pays(queries=4, tokens=96, width=768, heads=12, head_dim=64)
    assert not pays(queries=96, tokens=96, width=768, heads=12, head_dim=64)
    assert not pays(queries=4, tokens=2, width=768, heads=12, head_dim=64)
