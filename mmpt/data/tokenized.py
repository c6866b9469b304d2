"""A split as token ids. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from mmpt.data.tasks import Example

if TYPE_CHECKING:
    from torch import Tensor


class RowStates(Protocol):
    """States that were computed once for every source of a split."""

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Those of some sources, padded to one length."""


@dataclass(frozen=True)
class TokenizedSplit:
    """N examples, their token ids, and the encoder's states where these are cached.

    Attributes:
        examples: The examples.
        features: One dict for each example: ``index``; ``input_ids`` (a list for each choice, where the example has
            several sources) and ``token_type_ids`` where the tokenizer has them; ``labels`` where labelled; for
            decoder-only models ``continuations``, what may be read behind the source.
        truncated: How many examples had a source or a target longer than the limit.
        activations: Cached states of all sources.
    """

    examples: tuple[Example, ...]
    features: list[dict[str, Any]]
    truncated: int
    activations: RowStates | None = None

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each source and its continuations; an example has one source, or as many as it has choices."""
        return [
            len(ids) + sum(map(len, feature.get("continuations", ())))
            for feature in self.features
            for ids in sources(feature)
        ]

    @cached_property
    def longest(self) -> list[int]:
        """Tokens of each example's longest source."""
        return [longest_source(feature) for feature in self.features]

    @cached_property
    def tokens(self) -> list[int]:
        """Tokens of each example's longest source and its target."""
        return [
            length + len(feature.get("labels", ())) for length, feature in zip(self.longest, self.features, strict=True)
        ]

    def batches(self, size: int) -> list[list[int]]:
        """Rows of each batch of an evaluation: examples of similar length, the short ones first."""
        order = sorted(range(len(self.features)), key=lambda row: self.longest[row])
        return [order[start : start + size] for start in range(0, len(order), size)]

    def of_longest(self) -> TokenizedSplit:
        """The one example with the most tokens."""
        row = max(range(len(self.features)), key=self.tokens.__getitem__)
        return TokenizedSplit((self.examples[row],), [{**self.features[row], "index": 0}], 0)


def sources(feature: Mapping[str, Any], name: str = "input_ids") -> list[list[int]]:
    """Ids of an example's sources: one, or as many as it has choices."""
    ids: list[Any] = feature[name]
    return ids if isinstance(ids[0], list) else [ids]


def longest_source(feature: Mapping[str, Any]) -> int:
    """Tokens of an example's longest source."""
    return max(map(len, sources(feature)))
