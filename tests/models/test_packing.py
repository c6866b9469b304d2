"""T5's decoder computes nothing for the padding of targets: the values and gradients of one that does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.data.collate import IGNORED
from mmpt.models.adapted import AdaptedModel
from mmpt.models.gradient_checkpointing import checkpoint_layers
from mmpt.models.kinds.seq2seq import EncoderDecoder
from tests.tiny import adapted, batch
from tests.tolerance import assert_close, assert_gradients_close, terms_of

LABELS = [[17, 33, 1], [40, 1], [17, 60, 8, 44, 1]]
METHODS: dict[str, dict[str, Any]] = {
    "multimask": {"num_virtual_tokens": 4},
    "prefix": {"num_virtual_tokens": 4, "gate": True},
    "paper": {"num_virtual_tokens": 4, "layout": "paper", "sites": ["decoder"]},
    "prefix_plus": {},
    "apt": {"num_virtual_tokens": 3},
    "smop": {"num_virtual_tokens": 3},
    "lora": {},
}


def model_of(method: str, model_type: str = "t5", **where: Any) -> AdaptedModel:
    name = "multimask" if method == "paper" else method
    model = adapted(name, METHODS[method], model_type=model_type, **where)
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def values(model: AdaptedModel, labels: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Likelihoods of all labels, or losses of given ones, for padded sources; gradients of their sum of squares."""
    model.zero_grad()
    ids, mask, _ = batch()
    encoded = model.start({"input_ids": ids, "attention_mask": mask})
    found = model.likelihoods(encoded, LABELS) if labels is None else model.losses(encoded, labels)
    found.square().sum().backward()
    parameters = model.method.named_parameters()
    return found.detach(), {name: each.grad.clone() for name, each in parameters if each.grad is not None}


def widths(model: AdaptedModel, labels: Tensor | None = None) -> list[tuple[int, ...]]:
    """What the decoder's last layer reads, in one pass."""
    seen: list[tuple[int, ...]] = []
    layer = model.injection.layers["decoder"][-1]
    with layer.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2]))):
        values(model, labels)
    return seen


@pytest.mark.parametrize("cross", ["auto", "absorbed", "projected"])
@pytest.mark.parametrize("method", METHODS)
def test_values_and_gradients_are_those_with_padding(method: str, cross: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(method)
    model.prepare(cross)
    found, gradients = values(model)
    monkeypatch.setattr(EncoderDecoder, "_packs", lambda *_: False)
    wanted, wanted_gradients = values(model)
    assert any(gradient.abs().max() > 0 for gradient in wanted_gradients.values())
    assert_close(found, wanted, terms_of(model.backbone))
    assert_gradients_close(gradients, wanted_gradients, terms_of(model.backbone, tokens=found.numel()))


@pytest.mark.parametrize("model_type", ["t5", "mt5"])
def test_padding_is_not_computed(model_type: str) -> None:
    model = model_of("multimask", model_type)
    assert widths(model) == [(1, 5 * sum(map(len, LABELS)))]


def test_where_padding_stays() -> None:
    every = torch.tensor([LABELS[0]] * 5)
    assert widths(model_of("multimask"), every) == [(5, 3)], "there is none"
    hole = every.clone()
    hole[2, 1] = IGNORED
    assert widths(model_of("multimask"), hole) == [(5, 3)], "the token behind it needs its state"
    longer = torch.cat([every, torch.full((5, 2), IGNORED)], dim=1)
    assert widths(model_of("multimask"), longer) == [(5, 5)], "no row is as long"
    assert widths(model_of("multimask", attention="eager")) == [(15, 5)]
    assert widths(model_of("multimask", "bart")) == [(15, 5)], "it knows tokens by their places"
    assert widths(model_of("multimask", "umt5")) == [(15, 5)], "it takes all states for those of one row"


@pytest.mark.parametrize("method", ["multimask", "apt"])
def test_checkpointing_changes_no_bit(method: str) -> None:
    model = model_of(method)
    wanted, gradients = values(model)
    checkpoint_layers(model.injection)
    assert widths(model) == [(1, 5 * sum(map(len, LABELS)))]
    found, again = values(model)
    assert torch.equal(found, wanted)
    assert all(torch.equal(again[name], gradient) for name, gradient in gradients.items())


def test_a_row_without_a_token_is_zero() -> None:
    labels = torch.full((5, 3), IGNORED)  # as of an example with fewer candidates than another
    labels[1], labels[3, :2] = torch.tensor(LABELS[0]), torch.tensor(LABELS[1])
    losses = values(model_of("prefix"), labels)[0]
    assert (losses[[0, 2, 4]] == 0).all() and (losses[[1, 3]] > 0).all()


def test_an_error_leaves_no_trace() -> None:
    model = model_of("prefix")
    before = values(model)[0]

    def stop(*_: Any) -> None:
        raise RuntimeError("stop")

    with model.backbone.lm_head.register_forward_pre_hook(stop), pytest.raises(RuntimeError, match="stop"):
        values(model)
    modules = [module for site in ("decoder", "cross") for module in model.injection.modules[site]]
    assert not any(module.__dict__.get("_mmpt_packing") for module in modules)
    assert torch.equal(values(model)[0], before)
