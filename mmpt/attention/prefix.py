"""A prefix in attention, as a value: extra keys and values, and what changes how queries attend to them.

Letters: B batch, G groups of rows, H heads, k head width, L layers, P prefix tokens, Q queries, N other keys, d model
width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

MASKED = -1e9  # the score of what may not be attended, as a method's own attention sees it


@dataclass(frozen=True)
class SiteShape:
    """The attention of one site: layers L, key/value heads H (fewer than query heads in some models), head width k."""

    layers: int
    heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Width H·k of one key or value."""
        return self.heads * self.head_dim


class Attend(Protocol):
    """A method's own way from attention scores to attention weights, instead of the softmax."""

    def __call__(self, scores: Tensor, tokens: int, hidden: Tensor, state: Tensor | None) -> Tensor:
        """Weights (B, H, Q, P+N), which need not sum to one.

        Args:
            scores: (B, H, Q, P+N), float32, those of the prefix first: scaled, biased, and ``MASKED`` where masked.
            tokens: P.
            hidden: What the attention module makes its queries of (B, Q, d).
            state: This layer's :attr:`KeyValue.attend_state` for each row of the batch, (B, …).
        """


@dataclass(frozen=True)
class KeyValue:
    """A site's prefix: ``key`` and ``value``, each (G, L, H, P, k), for G groups of rows of the batch.

    Attributes:
        key: L may be less than the site's layers: the prefix is then that of the last ones. G divides B, and a group's
            rows lie together: 1 where all share a prefix, B where each has its own.
        value: As ``key``.
        positioned: The prefix takes positions 0..P-1 of the sequence (layout ``paper``); others have no position.
        key_gate: (G', L, H or 1, P), G' dividing B too, multiplies keys: a prefix that examples share and see through
            masks of their own is never copied for every example.
        value_gate: The same for values.
        real: (G', P), True where there is a token, where prefixes of different lengths are stacked.
        output_gate: (L,): queries attend to the prefix alone, and that times the gate is added to their attention
            without it. At zero, nothing changes.
        shift: Is added to the positions of a decoder-only model's text (layout ``peft``).
        attend: Makes weights of the scores, instead of the softmax.
        attend_state: (G', L, …), what ``attend`` is given besides the scores: parameters, or values of each example.
    """

    key: Tensor
    value: Tensor
    positioned: bool = False
    key_gate: Tensor | None = None
    value_gate: Tensor | None = None
    real: Tensor | None = None
    output_gate: Tensor | None = None
    shift: int = 0
    attend: Attend | None = None
    attend_state: Tensor | None = None

    def layers(self) -> list[LayerPrefix]:
        """The prefix of each layer."""
        tables = {name: getattr(self, name) for name in ("key", "value", "key_gate", "value_gate", "attend_state")}
        # unbind, not an index for each layer: the gradient of each index would be as large as the whole table
        parts = {name: table.unbind(1) for name, table in tables.items() if table is not None}
        if self.output_gate is not None:
            parts["output_gate"] = self.output_gate.unbind()
        whole: dict[str, Any] = vars(self)
        return [
            LayerPrefix(**(whole | dict(zip(parts, values, strict=True))))
            for values in zip(*parts.values(), strict=True)
        ]

    def expanded(self, batch: int) -> tuple[Tensor, Tensor]:
        """Gated keys and values of ``batch`` rows, each (B, L, H, P, k)."""
        layers = [layer.rows(batch, self.key.dtype) for layer in self.layers()]
        key, value = (torch.stack(parts, dim=1) for parts in zip(*layers, strict=True))
        return key, value


@dataclass(frozen=True)
class LayerPrefix(KeyValue):
    """One layer's :class:`KeyValue`, without the axis L: ``key`` and ``value`` (G, H, P, k), ``output_gate`` ()."""

    @property
    def tokens(self) -> int:
        """P."""
        return self.key.shape[2]

    def on(self, device: torch.device) -> LayerPrefix:
        """The same on a device: that of the layer, where a network lies on several."""
        if self.key.device == device:
            return self
        moved: dict[str, Any] = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **moved)

    def rows(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gated keys and values of ``batch`` rows, each (B, H, P, k)."""
        pairs = ((self.key, self.key_gate), (self.value, self.value_gate))
        key, value = (_gated(part, gate, batch).to(dtype) for part, gate in pairs)
        return key, value

    def scores(self, query: Tensor) -> Tensor:
        """Scores (B, H, Q, P) of scaled queries (B, H, Q, k); no copy of the prefix is made for each row."""
        scores = times(query, self.key.transpose(2, 3))
        if self.key_gate is not None:
            scores = scores * _to_heads(for_batch(self.key_gate, query.shape[0]), scores)
        if self.real is not None:
            scores = scores.masked_fill(~for_batch(self.real, query.shape[0])[:, None, None], float("-inf"))
        return scores

    def read(self, weights: Tensor) -> Tensor:
        """What attention weights (B, H, Q, P) read from the prefix, (B, H, Q, k)."""
        if self.value_gate is not None:
            weights = weights * _to_heads(for_batch(self.value_gate, weights.shape[0]), weights)
        return times(weights, self.value)

    def separate(self, query: Tensor, scaling: float | None) -> Tensor:
        """Attention of queries (B, H, Q, k) to the prefix alone, times ``output_gate``: (B, H, Q, k)."""
        assert self.output_gate is not None
        key, value = self.rows(query.shape[0], query.dtype)
        grouped = query.shape[1] != key.shape[1]
        seen = F.scaled_dot_product_attention(query, key, value, scale=scaling, enable_gqa=grouped)
        return self.output_gate.to(seen.dtype) * seen

    def weights(self, scores: Tensor, hidden: Tensor, rows: slice, batch: int) -> Tensor:
        """What ``attend``, or else the softmax, makes of scores (B', H, Q, P+N) of some rows of the batch."""
        if self.attend is None:
            return torch.softmax(scores, dim=-1)
        state = None if self.attend_state is None else for_batch(self.attend_state, batch)[rows]
        finite = scores.float().clamp(min=MASKED)  # times a parameter, -inf would give it a gradient of NaN
        return self.attend(finite, self.tokens, hidden[rows], state).to(scores.dtype)


def shift_of(prefixes: Mapping[str, KeyValue]) -> int:
    """By how many positions prefixes move the text."""
    return max((prefix.shift for prefix in prefixes.values()), default=0)


def for_batch(part: Tensor, batch: int) -> Tensor:
    """Repeat (G, …) for ``batch`` rows, a multiple of G; a group's rows lie together (the beams of an example)."""
    have = part.shape[0]
    if have == batch:
        return part
    if have == 1:
        return part.expand(batch, *part.shape[1:])
    if batch % have:
        raise ValueError(f"a prefix for {have} examples cannot serve a batch of {batch}")
    return part.repeat_interleave(batch // have, dim=0)


def times(left: Tensor, right: Tensor) -> Tensor:
    """Rows (B, H, Q, n) times (G, H', n, m), as (B, H, Q, m); G divides B, and H' divides H.

    Broadcasting would copy ``right`` B times.
    """
    batch, heads, queries, width = left.shape
    right = _to_heads(right, left)
    groups = right.shape[0]
    if groups == batch:
        return left @ right
    each = batch // groups
    rows = left.view(groups, each, heads, queries, width).transpose(1, 2)  # (G, H, B/G, Q, n)
    product = rows.reshape(groups, heads, each * queries, width) @ right  # (G, H, B/G·Q, m)
    rows = product.view(groups, heads, each, queries, right.shape[-1]).transpose(1, 2)
    return rows.reshape(batch, heads, queries, right.shape[-1])


def _gated(part: Tensor, gate: Tensor | None, batch: int) -> Tensor:
    if gate is None:
        return for_batch(part, batch)
    rows = max(part.shape[0], gate.shape[0])
    return for_batch(for_batch(part, rows) * for_batch(gate, rows)[..., None], batch)


def _to_heads(part: Tensor, like: Tensor) -> Tensor:
    """Let (G, H' or 1, …) fit the query heads H of (B, H, Q, …): H/H' queries share a key; with an axis for Q."""
    part = (part if part.dim() == 4 else part[:, :, None]).to(like.dtype)
    have, heads = part.shape[1], like.shape[1]
    return part if have in (1, heads) else part.repeat_interleave(heads // have, dim=1)
