"""The published layout: where the published code puts its prefix, and the position bias that this brings.

The published code hands T5 a flat prefix that is doubled and split by four, of which T5 reads the first two parts per
layer (docs/fidelity.md). So decoder layer l has K from slot 4l mod 2L and V from slot (4l+1) mod 2L, slot j is masked
by column j mod L, and the prefix takes positions 0..P-1: T5's relative position bias applies to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

_BIAS = "_mmpt_bias_owner"


def remember_bias(modules: Sequence[nn.Module]) -> None:
    """Tell every decoder self-attention which module owns the relative position bias (itself, or the first layer)."""
    for module in modules:
        owner = None if getattr(module, "has_relative_attention_bias", False) else modules[0]
        object.__setattr__(module, _BIAS, owner)  # a plain reference: the owner must not become a submodule


def prefix_bias(module: nn.Module, *, queries: int, past: int, length: int) -> Tensor:
    """Position bias (1, H, Q, P), float, of a prefix at positions 0..P-1, where the text starts at position P.

    ``module`` is a decoder self-attention that :func:`remember_bias` has seen; ``past`` tokens were generated before
    the first query.
    """
    owner: Any = getattr(module, _BIAS) or module
    bias: Tensor = owner.compute_bias(queries, length, past_seen_tokens=past + length)
    return bias
