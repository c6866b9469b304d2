"""Put a prompt into rows of tokens, and remove it from their states again.

Letters: B rows, T tokens of a row, P prompt tokens, d model width.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.attention.prefix import for_batch
from mmpt.methods.base import Contribution


class Insertion:
    """P prompt tokens in rows of T tokens."""

    def __init__(
        self, prompt: int, tokens: int, at: int | Tensor, lengths: Tensor | None = None, *, padding_first: bool = False
    ) -> None:
        """Work out the order of the new rows.

        ``at`` is how many tokens stand before the prompt, one number or (B,); ``lengths`` (B,) how many prompt tokens
        each row has, up to P, None: all P. Padding of shorter prompts goes to the end of the row, or to its front.
        """
        self.prompt, self.at, self.padding_first = prompt, at, padding_first
        self.lengths = lengths
        self.order: Tensor | None = None  # (B, T+P), from tokens followed by prompt; None: the same in all rows
        if isinstance(at, Tensor) or lengths is not None:
            self.order = self._order(tokens)

    def _order(self, tokens: int) -> Tensor:
        known: Tensor = self.at if isinstance(self.at, Tensor) else self.lengths  # type: ignore[assignment]
        at = torch.as_tensor(self.at, device=known.device).expand(len(known)).unsqueeze(1)  # (B, 1)
        index = torch.arange(tokens, device=known.device)
        own = torch.where(index < at, index, index + self.prompt)  # (B, T)
        new = at + torch.arange(self.prompt, device=known.device)  # (B, P)
        if self.lengths is not None:
            absent = torch.arange(self.prompt, device=known.device) >= self.lengths.unsqueeze(1)
            new = new.masked_fill(absent, -1 if self.padding_first else tokens + self.prompt)
        return torch.cat([own, new], dim=1).argsort(dim=1, stable=True)

    def rows(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """Put prompt values (B or 1, P, …) into token values (B, T, …): (B, P+T, …)."""
        prompt = prompt.to(tokens.dtype).expand(len(tokens), *prompt.shape[1:])
        if self.order is None:
            assert isinstance(self.at, int)
            return torch.cat([tokens[:, : self.at], prompt, tokens[:, self.at :]], dim=1)
        order = for_batch(self.order, len(tokens))
        return gathered(torch.cat([tokens, prompt], dim=1), order)

    def mask(self, mask: Tensor) -> Tensor:
        """Widen a mask (B', T'), T' at least T: 1 where a prompt token is. B' is a multiple of B, T' counts from T."""
        if self.order is None and isinstance(self.at, int):
            return F.pad(mask, (self.prompt, 0), value=1) if self.at == 0 else self.rows(mask, self._ones(mask))
        grown = Insertion(self.prompt, mask.shape[1], self.at, self.lengths, padding_first=self.padding_first)
        return grown.rows(mask, self._ones(mask))

    def _ones(self, mask: Tensor) -> Tensor:
        if self.lengths is None:
            return mask.new_ones(1, self.prompt)
        real = torch.arange(self.prompt, device=mask.device) < self.lengths.unsqueeze(1)
        return for_batch(real.to(mask.dtype), len(mask))

    def positions(self, positions: Tensor) -> Tensor:
        """Positions (B or 1, T) of the tokens as those of the new rows (B or 1, P+T): the prompt's come between."""
        at = torch.as_tensor(self.at, device=positions.device).reshape(-1, 1)
        index = torch.arange(positions.shape[1], device=positions.device)
        length = self.prompt if self.lengths is None else self.lengths.unsqueeze(1)
        moved = positions + length * (index >= at)
        first = positions.expand(max(len(positions), len(at)), -1).gather(1, at.expand(max(len(positions), len(at)), 1))
        return self.rows(moved.expand(len(first), -1), first + torch.arange(self.prompt, device=positions.device))

    def without(self, states: Tensor) -> Tensor:
        """The tokens' own states (B, T, d) of (B, P+T, d)."""
        if self.order is None:
            assert isinstance(self.at, int)
            after = states[:, self.at + self.prompt :]
            return after if self.at == 0 else torch.cat([states[:, : self.at], after], dim=1)
        return gathered(states, for_batch(self._own, len(states)))

    @cached_property
    def _own(self) -> Tensor:
        """Where the tokens are in the new rows (B, T)."""
        assert self.order is not None
        return self.order.argsort(dim=1)[:, : self.order.shape[1] - self.prompt]


def gathered(values: Tensor, order: Tensor) -> Tensor:
    """Values (B, N, …) in the order (B, M)."""
    index = order.view(*order.shape, *[1] * (values.dim() - 2)).expand(*order.shape, *values.shape[2:])
    return values.gather(1, index)


def insert(
    contribution: Contribution,
    embeddings: Tensor,
    at: int | Tensor = 0,
    *,
    first: int | Tensor = 0,
    text: Tensor | None = None,
    padding_first: bool = False,
) -> tuple[Tensor, Insertion | None]:
    """Word embeddings (B, T, d) with a method's update and prompt: (B, P+T, d), and where the prompt stands.

    ``at`` and ``padding_first`` are those of :class:`Insertion`. The text begins with token ``first``, one number or
    (B,), behind padding; ``text`` (B, T) has which tokens are of the source, None: all.
    """
    if contribution.embedding_update is not None:
        embeddings = _updated(embeddings, contribution.embedding_update, first, text)
    prompt, tokens = contribution.prompt, embeddings.shape[1]
    if contribution.layer_prompts is not None:  # each layer puts its own one there
        prompt = embeddings.new_zeros(1, contribution.layer_prompts.tokens, embeddings.shape[2])
    if prompt is None:
        return embeddings, None
    where = Insertion(prompt.shape[1], tokens, at, contribution.prompt_lengths, padding_first=padding_first)
    return where.rows(embeddings, prompt), where


def _updated(embeddings: Tensor, update: Tensor, first: int | Tensor, text: Tensor | None) -> Tensor:
    """Embeddings (B, T, d) plus an update (M, d) or (B, M, d) of M tokens from the first, T above or below M."""
    tokens = embeddings.shape[1]
    update = update.to(embeddings.dtype).expand(len(embeddings), -1, -1)
    update = F.pad(update, (0, 0, 0, max(tokens - update.shape[1], 0)))[:, :tokens]
    if isinstance(first, Tensor):
        order = torch.arange(tokens, device=update.device) - first.unsqueeze(1)  # (B, T)
        update = gathered(update, order.clamp(min=0)) * (order >= 0).unsqueeze(-1)
    return embeddings + (update if text is None else update * text.unsqueeze(-1))
