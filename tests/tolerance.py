"""How far two computations of the same value may differ, when they add the same terms in another order.

The rounding of one addition is at most half an epsilon of the sum so far, up or down. Over n of them these errors add
up like a random walk: to about epsilon · √n · scale. That the same computation gives the same bits is tested with
``torch.equal``; this is for different ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

SAFETY = 4  # both computations round (2), and the largest of many differences is above the usual one (2)


def tolerance(wanted: Tensor, terms: int, scale: float = 0.0) -> float:
    """Largest absolute difference: safety · epsilon of the dtype · √terms · scale.

    Args:
        wanted: Values of one computation; the scale is the largest of them.
        terms: How many terms each is the sum of.
        scale: At least this, where large terms cancel.
    """
    largest = max(float(wanted.detach().abs().max()), scale)
    return SAFETY * torch.finfo(wanted.dtype).eps * math.sqrt(terms) * largest


def terms_of(model: nn.Module, tokens: int = 1) -> int:
    """How many terms are added on the way of a value through a network: the inputs of all of its matrices.

    Args:
        model: The network.
        tokens: Over how many tokens of a batch gradients are summed.
    """
    return tokens * sum(parameter.shape[-1] for parameter in model.parameters() if parameter.dim() == 2)


def assert_close(found: Tensor, wanted: Tensor, terms: int, what: object = "", scale: float = 0.0) -> None:
    """Two computations of one value differ by rounding alone."""
    assert found.shape == wanted.shape, what
    difference, allowed = float((found - wanted).detach().abs().max()), tolerance(wanted, terms, scale)
    assert difference <= allowed, f"{what}: they differ by {difference:.2e}, rounding explains {allowed:.2e}"


def assert_gradients_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], terms: int) -> None:
    """Two computations of all gradients differ by rounding alone; the terms of a small one may be as large as any."""
    assert found.keys() == wanted.keys()
    scale = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in found.items():
        assert_close(gradient, wanted[name], terms, name, scale)
