"""Options of methods on every kind of model, at every site: gradients, batches, saving, caches."""

from __future__ import annotations

from typing import Any

import pytest

from mmpt.models.method_check import report

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
    ],
)
def test_an_option_works_everywhere(method: str, options: dict[str, Any]) -> None:
    assert report(method, options) == []
