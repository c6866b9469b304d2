"""Targets of different lengths without padding: layers see all real tokens as one row, attention sees padded rows.

What a decoder computes for each token alone (projections, feed-forward layers, norms) is then not computed for padding.
T5's relative position bias and causality depend on the distance of two tokens alone, so those of a padded row are the
beginning of those of the one long row.

Letters: B rows, U tokens of the longest, n real tokens of all rows, H heads, k head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_PACKING = "_mmpt_packing"  # an attention module's attribute: how the tokens of this pass are packed


class Packing:
    """Which of (B, U) tokens are real; a row's padding is at its end."""

    def __init__(self, places: Tensor, shape: torch.Size) -> None:
        """``places`` (n,) are those of real tokens among the B·U; ``shape`` is (B, U)."""
        self.places, self.shape = places, shape
        self._masks: tuple[Tensor, Tensor] | None = None  # the last source mask, and what is left of it

    def pack(self, rows: Tensor) -> Tensor:
        """(1, n, …) of (B, U, …)."""
        return rows.flatten(0, 1).index_select(0, self.places)[None]

    def unpack(self, packed: Tensor) -> Tensor:
        """(B, U, width) of (1, n, width), with zeros for padding."""
        rows, longest = self.shape
        empty = packed.new_zeros(rows * longest, packed.shape[2])
        return empty.index_copy(0, self.places, packed.flatten(0, 1)).view(rows, longest, -1)

    def heads(self, packed: Tensor) -> Tensor:
        """(B, H, U, k) of (1, H, n, k)."""
        rows = self.unpack(packed.transpose(1, 2).flatten(2))
        return rows.unflatten(2, (packed.shape[1], -1)).transpose(1, 2)

    def own(self, added: Tensor | None) -> Tensor | None:
        """Mask or bias (…, U, U) of self attention, from that of the one long row (…, n, n)."""
        return None if added is None else added[..., : self.shape[1], : self.shape[1]]

    def source(self, mask: Tensor | None) -> Tensor | None:
        """Mask (B, 1, 1, T) of cross attention, from (B, 1, n, T), the same for all queries and in all layers."""
        if mask is None or mask.shape[2] == 1:
            return mask
        if self._masks is None or self._masks[0] is not mask:
            self._masks = mask, mask[:, :, :1]
        return self._masks[1]


def packing_of(module: nn.Module) -> Packing | None:
    """How the tokens that an attention module gets are packed; None: they are rows."""
    packing: Packing | None = getattr(module, _PACKING, None)
    return packing


def carry_packing(modules: Sequence[nn.Module], packings: Sequence[Packing | None]) -> None:
    """Let attention modules get packed tokens, or rows."""
    for module, packing in zip(modules, packings, strict=True):
        object.__setattr__(module, _PACKING, packing)  # a value of one pass, never part of the state


@contextmanager
def packed(modules: Sequence[nn.Module], packing: Packing) -> Iterator[None]:
    """Let attention modules get packed tokens, within the block."""
    carry_packing(modules, [packing] * len(modules))
    try:
        yield
    finally:
        carry_packing(modules, [None] * len(modules))
