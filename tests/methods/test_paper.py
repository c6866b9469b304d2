"""The published layout: its dead half, in our class and in peft, and gone by default (docs/fidelity.md)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmpt.attention import positions
from mmpt.attention.prefix import SiteShape
from mmpt.methods.layout import Layout
from tests.rows import TERMS
from tests.tiny import adapted, backbone, batch
from tests.tolerance import assert_close


def dead_slots(grad: Tensor, layers: int) -> list[int]:
    """Slots of a prefix gradient (S, 2L·H·k) that are zero for all tokens."""
    return (grad.unflatten(-1, (2 * layers, -1)).abs().amax(dim=(0, 2)) == 0).nonzero().flatten().tolist()


@pytest.mark.parametrize(("layers", "dead"), [(4, [2, 3, 6, 7]), (3, []), (2, [2, 3])])
def test_half_of_the_published_prefix_is_dead_where_layers_are_even(layers: int, dead: list[int]) -> None:
    for layout, expected in (("paper", dead), ("per_layer", [])):
        model = adapted("prefix", {"layout": layout, "sites": ["decoder"]}, num_decoder_layers=layers)
        model(*batch()).loss.backward()
        grad = model.method.prefix["decoder"].grad
        assert grad is not None
        assert dead_slots(grad, layers) == expected


def test_the_published_mask_has_dead_columns() -> None:
    columns = {}
    for layout in ("paper", "per_layer"):
        model = adapted("multimask", {"layout": layout, "sites": ["decoder"]}, num_decoder_layers=4)
        model(*batch()).loss.backward()
        grad = model.method.masks["decoder"].grad
        assert grad is not None
        columns[layout] = (grad.abs().amax(dim=(0, 1)) > 0).tolist()
    assert columns == {"paper": [True, True, False, False], "per_layer": [True] * 4}


def test_slots_of_t5_base() -> None:
    layout = Layout("paper", SiteShape(12, 12, 64))
    used = {*layout.key_slots, *layout.value_slots}
    assert len(used) == 12
    assert {layout.columns[slot] for slot in used} == {0, 1, 4, 5, 8, 9}


def test_peft_leaves_half_of_its_prefix_untrained_on_t5() -> None:
    """Of peft's prefix for T5, half of the entries get no gradient; of ours, none at the same site."""
    from peft import PrefixTuningConfig, TaskType, get_peft_model

    built = backbone(num_layers=4, num_decoder_layers=4)
    built.model.set_attn_implementation("sdpa")
    model = get_peft_model(built.model, PrefixTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=10))
    ids, mask, labels = batch()
    model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    (parameter,) = (value for value in model.parameters() if value.requires_grad)
    assert parameter.grad is not None
    dead = (parameter.grad.abs().amax(dim=0) == 0).float().mean()
    assert float(dead) == 0.5


def test_a_positioned_prefix_sees_the_bias_of_its_positions() -> None:
    """Query u at position P+u looks back at prefix token s over P+u-s positions."""
    model = adapted("prefix", {"layout": "paper", "sites": ["decoder"], "num_virtual_tokens": 3})
    first = model.injection.modules["decoder"][0]
    whole = first.compute_bias(8, 8)  # positions 0..7, the first three of them the prefix's
    for module in model.injection.modules["decoder"]:
        assert torch.equal(positions.prefix_bias(module, queries=5, past=0, length=3), whole[:, :, 3:, :3])
        assert torch.equal(positions.prefix_bias(module, queries=1, past=4, length=3), whole[:, :, 7:, :3])


def test_a_source_as_long_as_the_prefix_is_read() -> None:
    """The published code then takes parts of the prefix for the encoder's output."""
    for method in ("prefix", "multimask"):
        model = adapted(method, {"layout": "paper", "sites": ["decoder"], "num_virtual_tokens": 9}).eval()
        ids, mask, labels = batch(longest=9)
        wider = [torch.nn.functional.pad(part, (0, 1)) for part in (ids, mask)]
        with torch.no_grad():
            assert_close(model.logits(ids, mask, labels), model.logits(*wider, labels), TERMS)
            other = ids.masked_fill(ids > 3, 3)
            assert (model.logits(other, mask, labels) - model.logits(ids, mask, labels)).abs().max() > 1e-2


@pytest.mark.parametrize("method", ["prompt", "smop"])
def test_as_many_prompts_as_examples_are_not_transposed(method: str) -> None:
    model = adapted(method, {"num_virtual_tokens": 5}).eval()
    ids, mask, labels = batch(5)
    with torch.no_grad():
        together = model.logits(ids, mask, labels)
        alone = torch.cat([model.logits(ids[n : n + 1], mask[n : n + 1], labels[n : n + 1]) for n in range(5)])
    assert_close(together, alone, TERMS)
