"""Options of methods on every kind of model, at every site: gradients, batches, saving, caches."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mmpt.errors import ConfigError, ModelError
from mmpt.models.method_check import report
from tests.tiny import adapted

BELOW = {"router_input": "layer_below", "layers": "last_1"}
STRAIGHT = {"routing": "straight_through"}
TEXT = {"init": "text", "init_text": "say whether the second sentence follows"}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("prefix_plus", {"layers": "last_1"}),
        ("multimask", BELOW),
        ("multimask", {**BELOW, **STRAIGHT, **TEXT}),
        ("multimask", {**STRAIGHT, "mask_init": "apart"}),
        ("multimask", {**STRAIGHT, "share_type": "prepend", "num_routes": 2}),
        ("multimask", {"mask_init": "apart", "mask_granularity": "head", "router_temperature": 0.3}),
        ("multimask", {"mask_init": "apart", "mask_granularity": "key_value", "num_virtual_tokens": 2}),
        ("smop", {"router_temperature": 0.5}),
        *((method, {"layers": "last_1"}) for method in ("lora", "ia3", "full")),
    ],
)
def test_an_option_works_everywhere(method: str, options: dict[str, Any]) -> None:
    assert report(method, options) == []


@pytest.mark.parametrize("method", ["lora", "ia3", "full"])
@pytest.mark.parametrize(("model_type", "below", "total"), [("t5", 1, 2), ("gpt2", 2, 3), ("llama", 2, 3)])
def test_layers_below_the_changed_ones_are_constant(method: str, model_type: str, below: int, total: int) -> None:
    whole, last = (adapted(method, options, model_type=model_type) for options in ({}, {"layers": "last_1"}))
    assert whole.cacheable_layers.count is None
    assert last.cacheable_layers.count == below
    names = ".".join(name.replace("/", ".") for name, _ in last.method.named_parameters())
    assert set(re.findall(r"[.](?:block|h|layers)[.](\d)", names)) == {str(below), "2"}, "T5's decoder has three layers"
    with pytest.raises(ConfigError, match=rf"method.layers=last_9: site .* has {total} layers; give at most"):
        adapted(method, {"layers": "last_9"}, model_type=model_type)


def test_no_target_among_the_last_layers() -> None:
    first = {"target_modules": ["block.0.layer.0.SelfAttention.q"], "layers": "last_1"}
    with pytest.raises(ModelError, match=r"none is in method.layers=last_1; set method.layers=all"):
        adapted("lora", first, model_type="t5")
