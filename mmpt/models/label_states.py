"""Cached states of a decoder-only model: of a source, and of all that may follow it.

What a layer below the first trained one makes of a source does not depend on what follows, and what it makes of a label
depends on the two texts alone. So a row of states has the source's tokens, then those of each continuation, without a
gap; a pass picks the source and one continuation.

Letters: B sources, C continuations of a source, V tokens of a continuation, N states of a row, d model width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from mmpt.data.collate import IGNORED


@dataclass(frozen=True)
class LabelStates:
    """A batch's cached states.

    Attributes:
        states: (B, N, d), of a source, of its first continuation, of its second one, and so on.
        ids: Token ids of the continuations (B, C, V), -100 for padding.
    """

    states: Tensor
    ids: Tensor

    def starts(self, read: Tensor) -> Tensor:
        """Where the states of some labels begin, counted from their source's end.

        Args:
            read: Their ids (B', up to V), -100 for padding; B' is a multiple of B, a source's rows together.

        Returns:
            (B', 1).

        Raises:
            ValueError: One is not there. On a GPU nothing looks, since it would have to be waited for.
        """
        ids = self.ids.repeat_interleave(len(read) // len(self.ids), dim=0)  # (B', C, V)
        same = (ids == F.pad(read, (0, ids.shape[2] - read.shape[1]), value=IGNORED).unsqueeze(1)).all(dim=2)  # (B', C)
        if not same.is_cuda and not same.any(dim=1).all():
            raise ValueError("a label has no cached states: it is not among the continuations of its source")
        tokens = (ids != IGNORED).sum(dim=2)
        return (tokens.cumsum(dim=1) - tokens).gather(1, same.long().argmax(dim=1, keepdim=True))
