"""Routed prompts in every encoder layer against their formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mmpt
from mmpt.errors import ConfigError
from mmpt.methods.base import mean_embedding
from mmpt.methods.router import balance_loss, route_gates
from mmpt.models.parts import word_embeddings
from tests.methods.test_start import TEXT
from tests.rows import TERMS, WIDTH
from tests.tiny import adapted, batch
from tests.tolerance import assert_close

OPTIONS = {"num_virtual_tokens": 3, "init_std": 1.0}


def test_each_layer_gets_its_own_routed_prompt() -> None:
    """The encoder by hand: its blocks one by one, the prompt's places filled anew before each."""
    model = adapted("mept", OPTIONS).eval()
    method: Any = model.method
    backbone: Any = model.backbone
    ids, mask, _ = batch()
    with torch.no_grad():
        encoded = model.encode(ids, mask)
        states = word_embeddings(model.backbone)(ids)
        whole = torch.nn.functional.pad(mask, (3, 0), value=1)
        hidden = (1.0 - whole)[:, None, None] * torch.finfo(torch.float32).min
        bias = backbone.encoder.block[0].layer[0].SelfAttention.compute_bias(12, 12)
        for layer, block in enumerate(backbone.encoder.block):
            normed = states / (states.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
            probs = torch.softmax(mean_embedding(normed, mask) @ method.router[layer].weight.T, dim=-1)
            experts = method.prompts["experts"][layer].view(4, 3, 24)
            prompt = torch.einsum("br,rvd->bvd", route_gates(probs, 1), experts) + method.shared["expert"][layer]
            given = torch.cat([prompt, states], dim=1)
            given = given + _attended(block.layer[0], given, bias + hidden)
            given = block.layer[1](given)
            states = given[:, 3:]
        wanted = backbone.encoder.final_layer_norm(given)
        seen = whole.bool()
        assert_close(encoded.states[seen], wanted[seen], TERMS)
        assert torch.equal(encoded.mask, whole)
        assert_close(encoded.contribution.route_probs, probs, WIDTH)


def _attended(layer: Any, states: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    normed, module = layer.layer_norm(states), layer.SelfAttention
    query, key, value = (part(normed).unflatten(-1, (3, 8)).transpose(1, 2) for part in (module.q, module.k, module.v))
    weights = torch.softmax(query @ key.transpose(2, 3) + added, dim=-1)
    return module.o((weights @ value).transpose(1, 2).flatten(2))


def test_nothing_of_it_stays_in_the_backbone() -> None:
    model, plain = adapted("mept", OPTIONS).eval(), adapted("full").eval()
    with torch.no_grad():
        model.logits(*batch())
        ids, mask, labels = batch()
        with mmpt.disable_adapter(model.backbone):
            found = model.backbone(input_ids=ids, attention_mask=mask, labels=labels.clamp(min=0)).logits
        assert torch.equal(found, plain.backbone(input_ids=ids, attention_mask=mask, labels=labels.clamp(min=0)).logits)


def test_every_layer_starts_from_the_text_and_balances() -> None:
    model = adapted("mept", {"init": "text", "init_text": TEXT, "load_balance": 2.0, "perturb_router": False})
    experts: Any = model.method.prompts["experts"]
    assert torch.equal(experts[0], experts[1])
    output = model.train()(*batch())
    assert output.auxiliary is not None and output.auxiliary.requires_grad
    model = adapted("mept", {**OPTIONS, "load_balance": 2.0})
    probs = []
    method: Any = model.method
    original = method.prompt

    def keep(layer: int, mean: torch.Tensor) -> Any:
        found = original(layer, mean)
        probs.append(found[1])
        return found

    method.prompt = keep
    output = model.train()(*batch())
    wanted = 2.0 * torch.stack([balance_loss(each) for each in probs]).mean()
    assert len(probs) == 2 and torch.allclose(output.auxiliary, wanted)


def test_another_encoder_decoder_has_it_too_and_a_decoder_alone_is_refused() -> None:
    model = adapted("mept", OPTIONS, model_type="bart").eval()
    ids, mask, labels = batch()
    with torch.no_grad():
        together = model.logits(ids, mask, labels)
        length, target = int(mask[1].sum()), int((labels[1] != -100).sum())
        alone = model.logits(ids[1:2, :length], mask[1:2, :length], labels[1:2, :target])
        assert_close(alone[0], together[1, :target], TERMS)
    with pytest.raises(ConfigError, match="method=mept puts prompts into the encoder's layers"):
        adapted("mept", OPTIONS, model_type="gpt2")
