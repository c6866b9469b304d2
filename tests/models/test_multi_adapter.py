"""Batches whose rows choose an adapter each: every row gets what it gets in a batch of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.errors import AdapterError
from mmpt.methods import method_class, parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.engine import build_engine
from mmpt.models.stacking import passes
from tests.methods.test_all import CASES, opened
from tests.tiny import backbone, batch
from tests.tolerance import assert_close, terms_of

SHARING = {name: case for name, case in CASES.items() if not method_class(case[0]).changes_backbone()}
Cases = dict[str, tuple[str, dict[str, Any]]]


def models(cases: Cases, **where: Any) -> dict[str, AdaptedModel]:
    """Adapters of one backbone, whose values differ from those at the start."""
    shared, found = backbone(**where), {}
    for number, (key, (method, options)) in enumerate(cases.items()):
        torch.manual_seed(number)
        model = opened(build_engine(shared, parse(method, options), name=f"a{number}")).eval()
        with torch.no_grad():
            for parameter in model.method.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        found[key] = model
    return found


def grouped(found: dict[str, AdaptedModel]) -> list[list[str]]:
    shapes = next(iter(found.values())).injection.shapes
    return passes({key: model.method for key, model in found.items()}, shapes)


def assert_same_losses(chosen: list[AdaptedModel], owners: list[int], examples: tuple[Tensor, ...]) -> None:
    """Rows of different adapters in one batch, in any order, and each row by itself."""
    ids, mask, labels = (part[: len(owners)] for part in examples)
    with torch.no_grad():
        names = [chosen[owner].name for owner in owners]
        found = chosen[0].losses(chosen[0].encode(ids, mask, names), labels)
        wanted = [
            chosen[owner].losses(chosen[owner].encode(ids[row : row + 1], mask[row : row + 1]), labels[row : row + 1])
            for row, owner in enumerate(owners)
        ]
    assert_close(found, torch.cat(wanted), terms_of(chosen[0].backbone), [model.method.options for model in chosen])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_method_that_leaves_the_backbone_alone_shares(attention: str) -> None:
    everyone = models(SHARING, attention=attention)
    groups = grouped(everyone)
    assert sorted(name for members in groups for name in members) == sorted(everyone)
    assert len(groups) < len(everyone) / 2
    for members in groups:
        owners = [index % len(members) for index in range(2 * len(members))]
        if len(members) > 1:
            assert_same_losses([everyone[name] for name in members], owners, batch(len(owners)))


def test_what_cannot_share_a_pass_goes_apart() -> None:
    paper = {"layout": "paper", "sites": ["decoder"]}
    found = models(
        {
            "reads the encoder": ("multimask", {"router_input": "encoder"}),
            "plain": ("prefix", {}),
            "gated": ("prefix", {"gate": True}),
            "routed": ("multimask", {"num_virtual_tokens": 3}),
            "published": ("multimask", paper),
            "last": ("prefix", {"layers": "last_1"}),
            "prompt": ("smop", {}),
            "plain too": ("prefix", {"num_virtual_tokens": 2}),
            "gated too": ("prefix", {"gate": True}),
            "by query": ("apt", {}),
            "shorter": ("prefix", {**paper, "num_virtual_tokens": 3}),
        }
    )
    assert grouped(found) == [
        ["reads the encoder"],
        ["plain", "routed", "prompt", "plain too"],
        ["gated"],
        ["published"],
        ["last"],
        ["gated too"],
        ["by query"],
        ["shorter"],
    ]
    ids, mask, _ = batch(2)
    for names, reason in (
        (["plain", "gated"], "a gate of its output"),
        (["plain", "by query"], "an attend function"),
        (["plain", "published"], "layouts paper and per_layer"),
        (["published", "shorter"], "differ in length"),
        (["plain", "last"], "different layers"),
        (["plain", "reads the encoder"], "its router reads hidden states"),
    ):
        with pytest.raises(AdapterError, match=reason):
            found["plain"].encode(ids, mask, [found[name].name for name in names])


def test_names_are_checked() -> None:
    found = models({"a": ("prefix", {})})["a"]
    ids, mask, _ = batch(2)
    with pytest.raises(AdapterError, match="no adapter 'b0'"):
        found.encode(ids, mask, ["a0", "b0"])
    with pytest.raises(AdapterError, match="3 names for 2 rows"):
        found.encode(ids, mask, ["a0"] * 3)


def test_decoder_only_models_share() -> None:
    found = models(
        {
            "prefix": ("prefix", {"num_virtual_tokens": 3}),
            "shifted": ("prefix", {"num_virtual_tokens": 3, "layout": "peft"}),
            "routed": ("multimask", {"num_virtual_tokens": 5}),
            "shifted too": ("multimask", {"num_virtual_tokens": 3, "layout": "peft"}),
            "smop": ("smop", {"num_virtual_tokens": 2}),
            "longer": ("prefix", {"num_virtual_tokens": 4, "layout": "peft"}),
        },
        model_type="gpt2",
    )
    assert grouped(found) == [["prefix", "routed", "smop"], ["shifted", "shifted too"], ["longer"]]
    assert_same_losses([found[name] for name in ("prefix", "routed", "smop")], [0, 1, 2, 1, 0, 2], batch(9))
    assert_same_losses([found["shifted"], found["shifted too"]], [1, 0, 1], batch(9))


def test_gradients_are_those_of_each_by_itself() -> None:
    cases: Cases = {
        "a": ("multimask", {"num_virtual_tokens": 4}),
        "b": ("multimask", {"num_virtual_tokens": 2, "sites": ["cross"], "num_routes": 3, "mask_granularity": "head"}),
        "c": ("multimask", {"num_virtual_tokens": 2, "share_type": "prepend"}),
    }
    chosen = list(models(cases).values())
    for model in chosen:
        model.method.requires_grad_(True)
    ids, mask, labels = batch(6)
    owners = [0, 1, 2, 2, 1, 0]
    terms = terms_of(chosen[0].backbone, tokens=ids.numel() + labels.numel())
    chosen[0].losses(chosen[0].encode(ids, mask, [chosen[owner].name for owner in owners]), labels).sum().backward()
    found = [{name: p.grad.clone() for name, p in model.method.named_parameters()} for model in chosen]
    for index, model in enumerate(chosen):
        model.method.zero_grad()
        rows = [row for row, owner in enumerate(owners) if owner == index]
        model.losses(model.encode(ids[rows], mask[rows]), labels[rows]).sum().backward()
        for name, parameter in model.method.named_parameters():
            assert parameter.grad is not None
            assert_close(parameter.grad, found[index][name], terms, name)


def test_candidates_are_a_rows_own() -> None:
    one, two = models({"a": ("prefix", {}), "b": ("smop", {})}).values()
    ids, mask, _ = batch(4)
    candidates = [[[5, 1], [6, 7, 1]], [[8, 1], [9, 1], [10, 11, 12, 1]]]
    encoded = one.encode(ids, mask, [one.name, *[two.name] * 3])
    with torch.no_grad():
        likelihoods = one.likelihoods_of_rows(encoded, [candidates[0], *[candidates[1]] * 3])  # type: ignore[operator]
    assert likelihoods.shape == (4, 3) and likelihoods[0, 2] == 0
    first = one.rank(one.encode(ids[:1], mask[:1]), candidates[0])
    others = two.rank(two.encode(ids[1:], mask[1:]), candidates[1])
    assert_close(likelihoods[:1, :2], first, terms_of(one.backbone))
    assert_close(likelihoods[1:], others, terms_of(one.backbone))


def test_beams_stay_with_their_rows() -> None:
    one, two = models({"a": ("prefix", {}), "b": ("multimask", {"num_virtual_tokens": 3})}).values()
    ids, mask, _ = batch(4)
    options = {"max_new_tokens": 5, "num_beams": 2, "do_sample": False}
    found = one.generate(one.encode(ids, mask, [one.name] * 2 + [two.name] * 2), **options)
    pairs = zip((one, two), ids.split(2), mask.split(2), strict=True)
    parts = [model.generate(model.encode(own, seen), **options) for model, own, seen in pairs]
    longest = max(part.shape[1] for part in parts)
    wanted = torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])
    assert torch.equal(found, wanted)
