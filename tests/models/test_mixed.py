"""Batches that mix adapters of one backbone: each row gets what it gets in a batch of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.methods import method_class, parse
from mmpt.models import multi_adapter as mixed
from mmpt.models.adapted import AdaptedModel
from tests.methods.test_all import CASES, opened
from tests.tiny import backbone, batch

SHARING = {name: case for name, case in CASES.items() if not method_class(case[0]).changes_backbone()}


def models(cases: dict[str, tuple[str, dict[str, Any]]], **where: Any) -> list[AdaptedModel]:
    """Adapters of one backbone, whose values differ from those at the start."""
    shared, found = backbone(**where), []
    for number, (name, options) in enumerate(cases.values()):
        torch.manual_seed(number)
        model = opened(AdaptedModel.build(shared, parse(name, options))).eval()
        with torch.no_grad():
            for parameter in model.method.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        found.append(model)
    return found


def assert_same_losses(chosen: list[AdaptedModel], rows: list[int], examples: tuple[Tensor, ...]) -> None:
    """Adapters with so many rows each in one batch, and each in a batch of its own."""
    ids, mask, labels = (part[: sum(rows)] for part in examples)
    with torch.no_grad():
        found = chosen[0].losses(mixed.encode(chosen, rows, ids, mask), labels)
        parts = zip(chosen, *(part.split(rows) for part in (ids, mask, labels)), strict=True)
        wanted = [model.losses(model.encode(own, seen), target) for model, own, seen, target in parts]
    assert torch.allclose(found, torch.cat(wanted), atol=2e-5), [model.method.options for model in chosen]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_method_that_leaves_the_backbone_alone_mixes(attention: str) -> None:
    everyone = models(SHARING, attention=attention)
    order = torch.randperm(3 * len(everyone), generator=torch.Generator().manual_seed(3))
    shuffled = tuple(part[order] for part in batch(len(order)))
    groups = mixed.passes(everyone)
    assert sorted(index for members in groups for index in members) == list(range(len(everyone)))
    assert len(groups) < len(everyone) / 2
    for members in groups:
        assert_same_losses([everyone[index] for index in members], [1 + index % 3 for index in members], shuffled)


def test_what_cannot_share_a_pass_goes_apart() -> None:
    paper = {"layout": "paper", "sites": ["decoder"]}
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "reads the encoder": ("multimask", {"router_input": "encoder"}),
        "plain": ("prefix", {}),
        "gated": ("prefix", {"gate": True}),
        "routed": ("multimask", {"num_virtual_tokens": 3}),
        "published": ("multimask", paper),
        "last": ("prefix", {"layers": "last_1"}),
        "prompt": ("smop", {}),
        "plain too": ("prefix", {"num_virtual_tokens": 2}),
        "gated too": ("prefix", {"gate": True}),
        "published too": ("prefix", paper),
    }
    assert mixed.passes(models(cases)) == [[0], [1, 3, 6, 7], [2], [4, 9], [5], [8]]


def test_decoder_only_models_mix() -> None:
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "prefix": ("prefix", {"num_virtual_tokens": 3}),
        "shifted": ("prefix", {"num_virtual_tokens": 3, "layout": "peft"}),
        "routed": ("multimask", {"num_virtual_tokens": 5}),
        "shifted too": ("multimask", {"num_virtual_tokens": 3, "layout": "peft"}),
        "smop": ("smop", {"num_virtual_tokens": 2}),
        "longer": ("prefix", {"num_virtual_tokens": 4, "layout": "peft"}),
    }
    everyone = models(cases, model_type="gpt2")
    assert mixed.passes(everyone) == [[0, 2, 4], [1, 3], [5]]
    for members in ([0, 2, 4], [1, 3]):
        assert_same_losses([everyone[index] for index in members], [2, 3, 1][: len(members)], batch(9))


def test_candidates_are_a_rows_own() -> None:
    chosen = models({"a": ("prefix", {}), "b": ("smop", {})})
    ids, mask, _ = batch(4)
    candidates = [[[5, 1], [6, 7, 1]], [[8, 1], [9, 1], [10, 11, 12, 1]]]
    likelihoods = mixed.rank(
        chosen[0],
        mixed.encode(chosen, [1, 3], ids, mask),
        [candidates[0], candidates[1], candidates[1], candidates[1]],
    )
    assert likelihoods.shape == (4, 3) and likelihoods[0, 2] == 0
    first = chosen[0].rank(chosen[0].encode(ids[:1], mask[:1]), candidates[0])
    others = chosen[1].rank(chosen[1].encode(ids[1:], mask[1:]), candidates[1])
    assert torch.allclose(likelihoods[:1, :2], first, atol=1e-5)
    assert torch.allclose(likelihoods[1:], others, atol=1e-5)


def test_beams_stay_with_their_rows() -> None:
    chosen = models({"a": ("prefix", {}), "b": ("multimask", {"num_virtual_tokens": 3})})
    ids, mask, _ = batch(4)
    options = {"max_new_tokens": 5, "num_beams": 2, "do_sample": False}
    found = chosen[0].generate(mixed.encode(chosen, [2, 2], ids, mask), **options)
    parts = [
        model.generate(model.encode(own, seen), **options)
        for model, own, seen in zip(chosen, ids.split(2), mask.split(2), strict=True)
    ]
    longest = max(part.shape[1] for part in parts)
    wanted = torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])
    assert torch.equal(found, wanted)
