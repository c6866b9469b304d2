"""Multi-mask prefix tuning against its own limits and formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mmpt
from mmpt.errors import ConfigError
from mmpt.methods import create, parse
from mmpt.methods.base import BackboneShape, mean_embedding
from mmpt.methods.options import RouterOptions
from mmpt.methods.router import Router, balance_loss, chosen_route, route_gates
from tests.rows import TERMS, WIDTH
from tests.tiny import adapted, batch
from tests.tolerance import assert_close, terms_of


@pytest.mark.parametrize("layout", ["per_layer", "paper"])
def test_open_masks_make_it_prefix_tuning(layout: str) -> None:
    options = {"layout": layout, "sites": ["decoder"], "num_virtual_tokens": 4}
    many, one = adapted("multimask", options).eval(), adapted("prefix", options).eval()
    with torch.no_grad():
        many.method.masks["decoder"].fill_(100.0)
        one.method.prefix["decoder"].copy_(many.method.prefix["decoder"])
        assert_close(many.logits(*batch()), one.logits(*batch()), TERMS)


def test_closed_masks_are_not_without_effect() -> None:
    """A zeroed prefix still takes attention mass: sigmoid(-inf) isn't the absence of a prefix."""
    model = adapted("multimask").eval()
    with torch.no_grad():
        for mask in model.method.masks.values():
            mask.fill_(-100.0)
        closed = model.logits(*batch())
        ids, mask, labels = batch()
        with mmpt.disable_adapter(model.backbone):
            plain = model.backbone(input_ids=ids, attention_mask=mask, labels=labels.clamp(min=0)).logits
    assert not torch.allclose(closed[0], plain[0], atol=1e-3)


def test_equal_masks_make_the_router_irrelevant() -> None:
    model = adapted("multimask").eval()
    with torch.no_grad():
        for mask in model.method.masks.values():
            mask.copy_(mask[:1].expand_as(mask))
        before = model.logits(*batch())
        model.method.router.weight.normal_()
        assert_close(model.logits(*batch()), before, TERMS)


def test_one_route_has_no_router_and_equals_prefix_with_one_mask() -> None:
    many, one = adapted("multimask", {"num_routes": 1}).eval(), adapted("prefix", {"mask": "single"}).eval()
    assert not [name for name, _ in many.method.named_parameters() if "router" in name]
    with torch.no_grad():
        for site in ("decoder", "cross"):
            one.method.prefix[site].copy_(many.method.prefix[site])
            one.method.masks[site].copy_(many.method.masks[site][0])
        assert_close(many.logits(*batch()), one.logits(*batch()), TERMS)


def test_a_mask_entry_acts_on_its_own_token_and_layer_only() -> None:
    model = adapted("multimask", {"num_virtual_tokens": 4}).eval()
    ids, mask, _ = batch()
    with torch.no_grad():
        before = model.encode(ids, mask).contribution.prefixes["decoder"].expanded(len(ids))
        model.method.masks["decoder"][:, 2, 1] -= 3.0
        after = model.encode(ids, mask).contribution.prefixes["decoder"].expanded(len(ids))
    for old, new in zip(before, after, strict=True):
        changed = (old != new).any(dim=-1).any(dim=2).any(dim=0)  # (L, P)
        assert changed.nonzero().tolist() == [[1, 2]]


def test_masks_are_blended_before_the_sigmoid() -> None:
    model = adapted("multimask", {"sites": ["cross"]}).eval()
    ids, mask, _ = batch()
    with torch.no_grad():
        probs = model.encode(ids, mask).contribution.route_probs
        assert probs is not None
        blended = torch.sigmoid(torch.einsum("br,rsl->bsl", probs, model.method.masks["cross"]))
        slots = model.method.prefix["cross"].view(10, 3, 2, 3, 8)  # S, L, key/value, H, k
        expected = torch.einsum("bsl,slhk->blhsk", blended, slots[:, :, 0])
        key, _ = model.encode(ids, mask).contribution.prefixes["cross"].expanded(len(ids))
        assert_close(key, expected, WIDTH)


def test_router_noise_scales_the_logits_and_leaves_the_gradient_alone() -> None:
    torch.manual_seed(0)
    router = Router(6, RouterOptions(num_routes=3)).train()
    mean = torch.randn(4, 6)
    clean = (mean @ router.weight.T).detach()
    torch.manual_seed(5)
    noise = 1.0 + torch.randn_like(clean)
    torch.manual_seed(5)
    probs = router(mean)
    assert_close(probs, torch.softmax(clean * noise, dim=-1), WIDTH)
    upstream = torch.randn_like(probs)
    probs.backward(upstream)
    leaf = (clean * noise).requires_grad_()
    torch.softmax(leaf, dim=-1).backward(upstream)
    assert torch.allclose(router.weight.grad, leaf.grad.T @ mean, atol=1e-6)  # dz'/dz = 1
    assert_close(router.weight @ router.weight.T, torch.eye(3), WIDTH)


def test_router_dropout_takes_the_place_of_noise() -> None:
    torch.manual_seed(0)
    options = RouterOptions(perturb_router=False, router_dropout=0.5)
    router, mean = Router(8, options), torch.randn(64, 8)
    logits = mean @ router.weight.T
    torch.manual_seed(3)
    dropped = nn.functional.dropout(logits, 0.5)
    torch.manual_seed(3)
    assert_close(router(mean), torch.softmax(dropped, dim=-1), WIDTH)


def test_gates_and_means() -> None:
    probs = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert torch.equal(route_gates(probs, 1), torch.tensor([[0.0, 0.6, 0.0], [0.5, 0.0, 0.0]]))
    assert torch.equal(route_gates(probs, 2), torch.tensor([[0.0, 0.6, 0.3], [0.5, 0.0, 0.3]]))
    embeddings = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert torch.equal(mean_embedding(embeddings, mask), torch.tensor([[1.0, 2.0], [0.0, 0.0]]))


@pytest.mark.parametrize("granularity", ["head", "key_value"])
def test_a_mask_entry_acts_on_its_own_head_or_on_keys_or_values_only(granularity: str) -> None:
    model = adapted("multimask", {"num_virtual_tokens": 4, "mask_granularity": granularity}).eval()
    ids, mask, _ = batch()
    with torch.no_grad():
        before = model.encode(ids, mask).contribution.prefixes["cross"].expanded(len(ids))
        model.method.masks["cross"][:, 2, 1, 1] -= 3.0
        after = model.encode(ids, mask).contribution.prefixes["cross"].expanded(len(ids))
    changed = [(old != new).any(dim=-1).any(dim=0).nonzero().tolist() for old, new in zip(before, after, strict=True)]
    if granularity == "head":  # (L, H, P)
        assert changed == [[[1, 1, 2]], [[1, 1, 2]]]
    else:
        assert changed == [[], [[1, head, 2] for head in range(3)]]


@pytest.mark.parametrize("method", ["multimask", "prefix"])
def test_equal_entries_make_finer_masks_masks_by_layer(method: str) -> None:
    options = {"sites": ["decoder", "cross"], "mask": "per_route" if method == "multimask" else "single"}
    plain = adapted(method, options).eval()
    for granularity in ("head", "key_value"):
        fine = adapted(method, {**options, "mask_granularity": granularity}).eval()
        with torch.no_grad():
            for name, parameter in fine.method.named_parameters():
                value = plain.method.get_parameter(name)
                parameter.copy_(value.unsqueeze(-1) if parameter.dim() > value.dim() else value)
            assert_close(fine.logits(*batch()), plain.logits(*batch()), TERMS)
        for name, value in fine.method.mask_values().items():
            wanted = plain.method.mask_values()[name.removesuffix("_keys").removesuffix("_values")]
            assert_close(value, wanted, WIDTH)


def test_temperature_divides_masks_before_the_sigmoid() -> None:
    cold, plain = adapted("multimask", {"mask_temperature": 0.5}).eval(), adapted("multimask").eval()
    with torch.no_grad():
        for mask in plain.method.masks.values():
            mask.mul_(2.0)
        assert_close(cold.logits(*batch()), plain.logits(*batch()), TERMS)
    for site, values in plain.method.mask_values().items():
        assert torch.allclose(cold.method.mask_values()[site], values)


def test_the_router_may_read_the_mean_of_the_encoder_output_with_and_without_its_cache() -> None:
    model = adapted("multimask", {"router_input": "encoder"}).eval()
    ids, mask, labels = batch()
    with torch.no_grad():
        encoded = model.encode(ids, mask)
        wanted = model.method.router(mean_embedding(encoded.states, mask))
        assert torch.equal(encoded.contribution.route_probs, wanted)
        plain = model.method.router(mean_embedding(model.backbone.get_input_embeddings()(ids), mask))
        assert not torch.allclose(wanted, plain, atol=1e-3)
        means = torch.full((len(ids), 24), float("nan"))
        resumed = model.resume({"states": encoded.states, "attention_mask": mask, "means": means})
        assert torch.equal(model.losses(resumed, labels), model.losses(encoded, labels))


def test_a_router_cannot_read_an_encoder_that_is_not_there() -> None:
    shape = adapted("prefix").method.shape
    alone = BackboneShape(shape.width, {"self": shape.sites["decoder"]}, "gpt2")
    with pytest.raises(ConfigError, match="router_input=encoder: gpt2 models have no encoder whose output"):
        create(parse("multimask", {"router_input": "encoder"}), alone)


def test_prefix_dropout_is_for_training_only() -> None:
    model, plain = adapted("multimask", {"prefix_dropout": 0.5}), adapted("multimask")
    with torch.no_grad():
        assert torch.equal(model.eval().logits(*batch()), plain.eval().logits(*batch()))
        key = model.train().encode(*batch()[:2]).contribution.prefixes["cross"].key
    kept = key[key != 0]
    table = model.method.prefix["cross"]
    assert 0.4 < len(kept) / key.numel() < 0.6
    assert set((kept / 2).tolist()) <= set(table.flatten().tolist())


def test_load_balance_is_least_for_even_routes_and_is_added_while_training() -> None:
    even = torch.full((8, 4), 0.2) + 0.2 * torch.eye(4).repeat(2, 1)
    assert float(balance_loss(even)) == pytest.approx(1.0)
    one = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).expand(8, 4)
    assert float(balance_loss(one)) == pytest.approx(4 * 0.7)
    options = {"load_balance": 0.5, "perturb_router": False, "router_dropout": 0.0}
    for method in ("multimask", "smop"):
        model = adapted(method, options)
        output, tested = model.train()(*batch()), model.eval()(*batch())
        assert tested.auxiliary is None and output.auxiliary is not None
        assert torch.allclose(output.auxiliary, 0.5 * balance_loss(output.route_probs))
        assert_close(output.loss, tested.loss + output.auxiliary, WIDTH)
        output.auxiliary.backward()
        assert model.method.router.weight.grad.abs().max() > 0


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3"])
def test_the_router_reads_the_prompts_states_below_the_prefix(model_type: str) -> None:
    """Not the answer's, the same with padding in front, and the same from cached states."""
    options = {"router_input": "layer_below", "layers": "last_1"}
    model = adapted("multimask", options, model_type=model_type).eval()
    ids, mask, labels = batch()
    with torch.no_grad():
        wanted = model.encode(ids, mask).contribution.route_probs
        plain = adapted("full", model_type=model_type).eval().backbone
        states = plain(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        by_hand = model.method.router(mean_embedding(states, mask))
        assert_close(wanted, by_hand, terms_of(model))
        answered = torch.cat([ids, labels.clamp(min=1)], dim=1)
        given = torch.cat([torch.full_like(ids, -100), labels], dim=1)
        for front in (0, 3):
            rows, seen, target = (
                torch.nn.functional.pad(part, (front, 0), value=value)
                for part, value in (
                    (answered, 0),
                    (torch.cat([mask, torch.ones_like(labels)], dim=1), 0),
                    (given, -100),
                )
            )
            model.backbone(input_ids=rows, attention_mask=seen, labels=target)
            assert_close(model.hooks.source.contribution.route_probs, by_hand, terms_of(model))
        read = labels[:, None, :-1].masked_fill(labels[:, None, 1:] == -100, -100)
        cached = {"input_ids": ids, "attention_mask": mask, "continuations": read}
        resumed = model.resume(
            {**cached, "states": model.constants(cached), "means": torch.full((5, 24), float("nan"))}
        )
        assert_close(resumed.contribution.route_probs, by_hand, terms_of(model))


def test_straight_through_takes_one_route_with_the_gradient_of_all() -> None:
    probs = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]], requires_grad=True)
    hard = chosen_route(probs)
    assert torch.equal(hard.detach(), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    upstream = torch.randn(2, 3)
    hard.backward(upstream)
    assert torch.equal(probs.grad, upstream)
    model = adapted("multimask", {"routing": "straight_through", "sites": ["cross"]}).eval()
    contribution = model.encode(*batch()[:2]).contribution
    route = contribution.route_probs.argmax(dim=-1)
    assert torch.equal(
        contribution.prefixes["cross"].key_gate[:, :, 0], model.method.masks["cross"][route].sigmoid().mT
    )


@pytest.mark.parametrize("granularity", ["layer", "head", "key_value"])
def test_apart_every_route_opens_another_part_and_together_they_open_all(granularity: str) -> None:
    method = adapted("multimask", {"mask_init": "apart", "mask_granularity": granularity}).method
    opened = torch.stack([value > 0.5 for value in method.mask_values().values()])  # (sites, R, P, L)
    assert torch.equal(opened.sum(dim=1), torch.ones_like(opened[:, 0], dtype=torch.long))
    assert opened.any(dim=2).all(), "a route without an open entry in some layer"
    alike = adapted("multimask", {"mask_granularity": granularity}).method
    for site, mask in method.masks.items():
        own = mask > 0
        assert torch.equal(mask[own], alike.masks[site][own])  # the same draws
        assert_close(mask[~own] + 5.0, alike.masks[site][~own], 2, scale=5.0)


def test_a_router_temperature_divides_its_logits() -> None:
    cold, plain = (adapted("multimask", {"router_temperature": each}).eval() for each in (0.5, 1.0))
    with torch.no_grad():
        plain.method.router.weight.mul_(2.0)
        assert torch.equal(cold.logits(*batch()), plain.logits(*batch()))
