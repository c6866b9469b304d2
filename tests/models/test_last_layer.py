"""The last layer computes only the states that the head reads: the values and gradients of one that computes all."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.models.adapted import AdaptedModel
from mmpt.models.gradient_checkpointing import checkpoint_layers
from mmpt.models.partial_forward import only_last
from tests import tiny, tiny_encoders
from tests.tolerance import assert_close, assert_gradients_close, terms_of

LABELS = [[17, 33, 1], [40, 1], [17, 60, 8, 1]]  # of different lengths, which share one source
METHODS: dict[str, dict[str, Any]] = {
    "multimask": {"num_virtual_tokens": 4},
    "prefix": {"num_virtual_tokens": 4, "layers": "last_1"},
    "prefix_plus": {},
    "apt": {"num_virtual_tokens": 3},
    "prompt": {"num_virtual_tokens": 3},
    "lora": {},
}
PAIRS = [
    (name, method)
    for name, row in ARCHITECTURES.items()
    for method in METHODS
    if not row.has_encoder and not (row.soft_capped and method in ("apt", "prefix_plus"))
]


def model_of(model_type: str, method: str, attention: str = "sdpa") -> AdaptedModel:
    source = tiny_encoders if ARCHITECTURES[model_type].has_head else tiny
    model = source.adapted(method, METHODS[method], model_type=model_type, attention=attention)
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def likelihoods(model: AdaptedModel) -> Tensor:
    ids, mask, _ = tiny.batch()
    labels = [[0], [1]] if model.injection.architecture.has_head else LABELS
    return model.likelihoods(model.start({"input_ids": ids, "attention_mask": mask}), labels)


def values(model: AdaptedModel) -> tuple[Tensor, dict[str, Tensor]]:
    """Likelihoods of all labels for padded sources, and the gradients of their sum of squares."""
    model.zero_grad()
    found = likelihoods(model)
    found.square().sum().backward()
    parameters = model.method.named_parameters()
    return found.detach(), {name: each.grad.clone() for name, each in parameters if each.grad is not None}


def widths(model: AdaptedModel) -> list[int]:
    """How many states of a row the last matrix of each layer reads, in one pass."""
    seen: list[int] = []
    handles = []
    for layer in model.injection.layers["self"]:
        matrices = [module for module in layer.modules() if getattr(module, "weight", torch.empty(0)).dim() == 2]
        handles.append(matrices[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2])))
    likelihoods(model)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(("model_type", "method"), PAIRS)
def test_values_and_gradients_are_those_of_all_states(
    model_type: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(model_type, method)
    found, gradients = values(model)
    kind = "encoder" if ARCHITECTURES[model_type].has_head else "causal"
    monkeypatch.setattr(f"mmpt.models.kinds.{kind}.only_last", lambda *_: nullcontext())
    wanted, wanted_gradients = values(model)
    assert any(gradient.abs().max() > 0 for gradient in wanted_gradients.values())
    assert_close(found, wanted, terms_of(model.backbone))
    assert_gradients_close(gradients, wanted_gradients, terms_of(model.backbone, tokens=found.numel()))


def test_only_what_is_read_is_computed() -> None:
    tokens, read = 9, sum(max(map(len, LABELS)) - 1 for _ in LABELS)  # of a source, of the labels with padding
    assert widths(model_of("llama", "multimask")) == [tokens + read] * 2 + [1 + read]
    assert widths(model_of("bert", "multimask")) == [tokens] * 3 + [1]


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "bert"])
def test_checkpointing_changes_no_bit(model_type: str) -> None:
    model = model_of(model_type, "multimask")
    wanted, gradients = values(model)
    checkpoint_layers(model.injection)
    found, again = values(model)
    assert widths(model)[-1] < widths(model)[0]
    assert torch.equal(found, wanted)
    assert all(torch.equal(again[name], gradient) for name, gradient in gradients.items())


def test_the_layer_is_itself_again_after_an_error() -> None:
    model = model_of("llama", "prefix")
    before = values(model)[0]
    with pytest.raises(RuntimeError, match="stop"), only_last(model.backbone, "self", torch.zeros(5, 1).long()):
        raise RuntimeError("stop")
    last, attention = model.injection.layers["self"][-1], model.injection.modules["self"][-1]
    assert "forward" not in last.__dict__ and "_mmpt_narrowed" not in attention.__dict__
    assert torch.equal(values(model)[0], before)
