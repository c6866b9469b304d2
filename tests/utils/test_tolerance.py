"""The tolerance between two computations covers another order of summation, and no more than about that."""

from __future__ import annotations

from functools import reduce

import pytest
import torch

from tests.tolerance import assert_close, tolerance


@pytest.mark.parametrize("terms", [100, 10_000])
def test_it_covers_another_order_alone(terms: int) -> None:
    values = torch.randn(64, terms, generator=torch.Generator().manual_seed(0))
    forward, backward = reduce(torch.add, values.unbind(1)), reduce(torch.add, values.flip(1).unbind(1))
    assert not torch.equal(forward, backward)
    assert_close(forward, backward, terms)
    assert tolerance(backward, terms) == pytest.approx(4 * 2**-23 * terms**0.5 * backward.abs().max().item())
    with pytest.raises(AssertionError, match="they differ by"):
        assert_close(forward * 1.001, backward, terms)
    assert tolerance(backward * 0, terms, scale=2.0) == pytest.approx(8 * 2**-23 * terms**0.5)
