"""Cached states of a decoder-only model: of a source, and of all that may follow it.

What a layer below the first trained one makes of a source doesn't depend on what follows, and what it makes of a label
depends on the two texts alone. So a row of states has the source's tokens, then those of each continuation, without a
gap; a pass picks the source and one continuation.

Letters: B sources, C continuations of a source, V tokens of a continuation, N states of a row, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.data.collate import IGNORED


@dataclass(frozen=True)
class Continued:
    """A batch's cached states.

    Attributes:
        states: (B, N, d), of a source, of its first continuation, of its second one, and so on.
        ids: Token ids of the continuations (B, C, V), -100 for padding.
    """

    states: Tensor
    ids: Tensor

    def places(self, read: Tensor) -> Tensor:
        """Where the states of some continuations begin, counted from their source's end.

        Args:
            read: Their ids (B', up to V), -100 for padding; B' is a multiple of B, a source's rows together.

        Returns:
            (B', 1).

        Raises:
            ValueError: One isn't there. On a GPU nothing looks, since it would have to be waited for.
        """
        ids = self.ids.repeat_interleave(len(read) // len(self.ids), dim=0)  # (B', C, V)
        same = (ids == F.pad(read, (0, ids.shape[2] - read.shape[1]), value=IGNORED).unsqueeze(1)).all(dim=2)  # (B', C)
        if not same.is_cuda and not same.any(dim=1).all():
            raise ValueError("a label has no cached states: it isn't among the continuations of its source")
        tokens = (ids != IGNORED).sum(dim=2)
        return (tokens.cumsum(dim=1) - tokens).gather(1, same.long().argmax(dim=1, keepdim=True))


def stack_continued(parts: Sequence[Continued | None]) -> Continued | None:
    """The batches one after another; None where one has no cached states, and all begin with the first layer."""
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    most, tokens = (max(part.ids.shape[axis] for part in found) for axis in (1, 2))
    ids = torch.cat(
        [F.pad(part.ids, (0, tokens - part.ids.shape[2], 0, most - part.ids.shape[1]), value=IGNORED) for part in found]
    )
    return Continued(stack_states([part.states for part in found]), ids)


def stack_states(parts: Sequence[Tensor]) -> Tensor:
    """States (B, N, d) of several batches one after another, padded with zeros to the longest N."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts])
