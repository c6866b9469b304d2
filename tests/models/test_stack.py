"""Stacked methods: each one's losses and gradients are those it has alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mmpt.methods import parse
from mmpt.methods.base import Contribution
from mmpt.models.adapted import AdaptedModel, Encoded
from mmpt.models.stack import stack
from tests.tiny import backbone, batch

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("multimask", {"num_virtual_tokens": 4}),
    ("multimask", {"num_virtual_tokens": 2, "sites": ["cross"], "num_routes": 3}),
    ("prefix", {"num_virtual_tokens": 3, "sites": ["decoder"]}),
    ("multimask", {"num_virtual_tokens": 2, "share_type": "prepend"}),  # a prefix of its own for every example
]


def together(
    cases: list[tuple[str, dict[str, Any]]], sizes: list[int], *, padded: bool = True, cross: str = "auto", **where: Any
) -> None:
    """Assert that a stacked pass gives each method what it gets by itself."""
    shared = replace(backbone(**where), cross_attention=cross)
    models, given, alone = [], [], []
    for number, ((name, options), size) in enumerate(zip(cases, sizes, strict=True)):
        torch.manual_seed(number)
        model = AdaptedModel.build(shared, parse(name, options)).eval()
        ids, mask, labels = batch(size, longest=9 + number * padded, target=3 + number % 2)
        mask = mask if padded else torch.ones_like(mask)
        losses = model.losses(model.encode(ids, mask), labels)
        losses.sum().backward()
        alone.append((losses.detach(), {name: p.grad.clone() for name, p in model.method.named_parameters()}))
        model.method.zero_grad()
        models.append(model)
        given.append((ids, mask, labels))
    parts = [model.encode(ids, mask) for model, (ids, mask, _) in zip(models, given, strict=True)]
    longest = max(labels.shape[1] for _, _, labels in given)
    filled = [torch.nn.functional.pad(labels, (0, longest - labels.shape[1]), value=-100) for _, _, labels in given]
    found = models[0].losses(stack(parts, models[0].injection.shapes), torch.cat(filled)).split(sizes)
    sum(part.sum() for part in found).backward()
    for model, losses, (wanted, gradients) in zip(models, found, alone, strict=True):
        assert torch.allclose(losses, wanted, atol=1e-5)
        for name, parameter in model.method.named_parameters():
            largest = float(gradients[name].abs().max())
            assert torch.allclose(parameter.grad, gradients[name], atol=1e-5 * max(1.0, largest)), name


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("d_kv", [8, 64])  # with wide heads projecting takes fewer operations
def test_different_methods_lengths_and_sites(attention: str, d_kv: int) -> None:
    together(METHODS, [5, 5, 5, 5], attention=attention, d_kv=d_kv)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cross", ["absorbed", "projected"])
def test_sources_without_padding(attention: str, cross: str) -> None:
    together(METHODS[:3], [5, 5, 5], padded=False, cross=cross, attention=attention)


def test_batches_of_different_sizes() -> None:
    together(METHODS[:3], [5, 2, 3])


def test_masks_of_heads_of_keys_and_values_and_of_layers() -> None:
    kinds = [
        {"mask_granularity": kind, "num_virtual_tokens": 2 + number}
        for number, kind in enumerate(("head", "key_value", "layer"))
    ]
    together([("multimask", {"num_routes": 3, **options}) for options in kinds], [5, 4, 5])
    together(
        [("multimask", kinds[0]), ("prefix", {}), ("multimask", {**kinds[1], "router_input": "encoder"})], [5, 5, 5]
    )


def test_prefixes_in_the_last_layers() -> None:
    together([(name, {**options, "layers": "last_2"}) for name, options in METHODS], [5, 5, 5, 5])
    with pytest.raises(ValueError, match="prefixes in different layers can't be stacked"):
        together([METHODS[0], ("prefix", {"layers": "last_1"})], [5, 5])


def test_one_prefix_a_method_is_not_copied_for_every_example() -> None:
    shared = backbone()
    models = [AdaptedModel.build(shared, parse("multimask", {"num_virtual_tokens": 4})) for _ in range(3)]
    parts = [model.encode(*batch()[:2]) for model in models]
    prefix = stack(parts, models[0].injection.shapes).contribution.prefixes["decoder"]
    assert prefix.key.shape[0] == 3 and prefix.key_gate.shape[0] == 15


@pytest.mark.parametrize("cases", [[("multimask", {"num_virtual_tokens": 3})] * 2])
def test_the_published_layout_can_be_stacked(cases: list[tuple[str, dict[str, Any]]]) -> None:
    together([(name, {**options, "layout": "paper", "sites": ["decoder"]}) for name, options in cases], [5, 5])


def test_what_cannot_be_stacked_is_refused() -> None:
    shared = backbone()
    paper = {"layout": "paper", "sites": ["decoder"]}
    models = [
        AdaptedModel.build(shared, parse("prefix", options))
        for options in ({}, paper, {**paper, "num_virtual_tokens": 3})
    ]
    plain, positioned, shorter = (model.encode(*batch()[:2]) for model in models)
    shapes = models[0].injection.shapes
    with pytest.raises(ValueError, match="layouts paper and per_layer"):
        stack([plain, positioned], shapes)
    with pytest.raises(ValueError, match="one length"):
        stack([positioned, shorter], shapes)
    gated = AdaptedModel.build(shared, parse("prefix", {"gate": True})).encode(*batch()[:2])
    with pytest.raises(ValueError, match="gate of their output"):
        stack([plain, gated], shapes)
    queried = AdaptedModel.build(shared, parse("apt", {})).encode(*batch()[:2])
    with pytest.raises(ValueError, match="gates by query"):
        stack([plain, queried], shapes)
    layered = AdaptedModel.build(shared, parse("mept", {})).encode(*batch()[:2])
    with pytest.raises(ValueError, match="prompts"):
        stack([plain, layered], shapes)
    prompted = Encoded(plain.states, plain.mask, Contribution(prompt=torch.zeros(1, 2, 24)))
    with pytest.raises(ValueError, match="prompts"):
        stack([plain, prompted], shapes)
    updated = Encoded(plain.states, plain.mask, Contribution(embedding_update=torch.zeros(2, 24)))
    with pytest.raises(ValueError, match="updates of embeddings"):
        stack([plain, updated], shapes)
