"""A split as token ids. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from mmpt.data.columns import BATCH
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
            decoder-only models ``continuations``, what may be read behind the source. A list, or rows of an Arrow file.
        truncated: How many examples had a source or a target longer than the limit.
        activations: Cached states of all sources.
    """

    examples: Sequence[Example]
    features: Any
    truncated: int
    activations: RowStates | None = None

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The features, in batches where they are stored."""
        if isinstance(self.features, list):
            yield from self.features
            return
        for batch in self.features.iter(BATCH):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))

    def at(self, rows: Sequence[int]) -> list[Mapping[str, Any]]:
        """The features of some examples."""
        if isinstance(self.features, list):
            return [self.features[row] for row in rows]
        return list(self.features.__getitems__(rows))

    def _each(self, *names: str) -> Iterator[Mapping[str, Any]]:
        """The features with no other columns than these read, where they are stored."""
        stored = not isinstance(self.features, list)
        present = [name for name in names if stored and name in self.features.column_names]
        return iter(replace(self, features=self.features.select_columns(present)) if stored else self)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each source and its continuations; an example has one source, or as many as it has choices."""
        return [
            len(ids) + sum(map(len, feature.get("continuations", ())))
            for feature in self._each("input_ids", "continuations")
            for ids in sources(feature)
        ]

    @cached_property
    def longest(self) -> list[int]:
        """Tokens of each example's longest source."""
        return [longest_source(feature) for feature in self._each("input_ids")]

    @cached_property
    def tokens(self) -> list[int]:
        """Tokens of each example's longest source and its target."""
        features = self._each("input_ids", "labels")
        return [longest_source(feature) + len(feature.get("labels", ())) for feature in features]

    def batches(self, size: int) -> list[list[int]]:
        """Rows of each batch of an evaluation: examples of similar length, the short ones first."""
        order = sorted(range(len(self.features)), key=self.longest.__getitem__)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def of_longest(self) -> TokenizedSplit:
        """The one example with the most tokens."""
        row = max(range(len(self.features)), key=self.tokens.__getitem__)
        return TokenizedSplit((self.examples[row],), [{**self.at([row])[0], "index": 0}], 0)


def sources(feature: Mapping[str, Any], name: str = "input_ids") -> list[list[int]]:
    """Ids of an example's sources: one, or as many as it has choices."""
    ids: list[Any] = feature[name]
    return ids if isinstance(ids[0], list) else [ids]


def longest_source(feature: Mapping[str, Any]) -> int:
    """Tokens of an example's longest source."""
    return max(map(len, sources(feature)))
