"""A split as token ids. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mmpt.data.columns import BATCH
from mmpt.data.tasks import Example

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray
# Padding that a batch of an evaluation may have. Who changes these raises FORMAT in mmpt/cache/activations.py.
PADDING = 0.1  # of its tokens; of 64 texts of RTE's lengths together, two thirds would be padding
LITTLE = 256  # tokens; less than that is not worth another batch


class RowStates(Protocol):
    """States that were computed once for every source of a split."""

    @property
    def means(self) -> Tensor:
        """Mean word embedding of each source (N, d)."""

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Those of some sources, padded to one length."""


@dataclass(frozen=True)
class TokenizedSplit:
    """N examples, their token ids, and the encoder's states where these are cached."""

    examples: Sequence[Example]
    # One dict for each example: index; input_ids (a list for each choice, where the example has several sources) and
    # token_type_ids where the tokenizer has them; labels where labelled; for decoder-only models continuations, what
    # may be read behind the source. A list, or rows of an Arrow file.
    features: Any
    truncated: int  # how many examples had a source or a target longer than the limit
    activations: RowStates | None = None  # cached states of all sources
    key: str | None = None  # names the ids of rows of an Arrow file, in place of all of them

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

    def _sizes(self, name: str) -> tuple[Array, Array]:
        """How many lists each example has under a name, (N,), and how many ids each list, (sum of these,); int32."""
        parts: list[tuple[Any, Any]] = []
        if isinstance(self.features, list):
            rows = [sources(feature, name) for feature in self.features]
            parts.append((list(map(len, rows)), [len(ids) for each in rows for ids in each]))
        else:
            import pyarrow.compute as pc

            for table in self.features.select_columns([name]).with_format("arrow").iter(BATCH):
                outer, lists = np.ones(len(table)), table[name].combine_chunks()
                if str(lists.type.value_type).startswith(("list", "large_list")):
                    outer, lists = pc.list_value_length(lists), lists.flatten()
                parts.append((outer, pc.list_value_length(lists)))
        counts, sizes = zip(*parts, strict=True)
        return np.concatenate(counts).astype(np.int32), np.concatenate(sizes).astype(np.int32)

    def _reduced(self, name: str, reduce: np.ufunc) -> Array:
        """(N,) int32: sum or maximum over each example's lists under a name, 0 where there are none."""
        columns = self.features if isinstance(self.features, list) else [self.features.column_names]
        if not any(name in column for column in columns):
            return np.zeros(len(self.features), dtype=np.int32)
        counts, sizes = self._sizes(name)
        return reduce.reduceat(sizes, np.cumsum(counts) - counts)

    @cached_property
    def lengths(self) -> Array:
        """Tokens of each source and its continuations; an example has one source, or as many as it has choices."""
        sizes = self._sizes("input_ids")[1]
        return sizes if len(sizes) > len(self.features) else sizes + self._reduced("continuations", np.add)

    @cached_property
    def longest(self) -> Array:
        """Tokens of each example's longest source."""
        return self._reduced("input_ids", np.maximum)

    @cached_property
    def tokens(self) -> Array:
        """Tokens of each example's longest source and its target."""
        return self.longest + self._reduced("labels", np.add)

    def batches(self, size: int) -> Iterator[list[int]]:
        """Rows of each batch of an evaluation: examples of similar length, the short ones first.

        A batch has up to ``size`` rows, and ends earlier where its padding would exceed both :data:`PADDING` and
        :data:`LITTLE`.
        """
        rows, tokens, lengths = list[int](), 0, self.longest.tolist()
        for row in np.argsort(self.longest, kind="stable").tolist():
            tokens += (length := lengths[row])
            padded = (len(rows) + 1) * length
            if rows and (len(rows) == size or padded - tokens > max(LITTLE, PADDING * padded)):
                yield rows
                rows, tokens = [], length
            rows.append(row)
        if rows:
            yield rows

    def of_longest(self) -> TokenizedSplit:
        """The one example with the most tokens."""
        row = int(self.tokens.argmax())
        return TokenizedSplit((self.examples[row],), [{**self.at([row])[0], "index": 0}], 0)


def sources(feature: Mapping[str, Any], name: str = "input_ids") -> list[list[int]]:
    """Ids of an example's sources: one, or as many as it has choices; none of what an example lacks."""
    ids: list[Any] = feature.get(name) or []
    return ids if ids and isinstance(ids[0], list) else [ids]


def longest_source(feature: Mapping[str, Any]) -> int:
    """Tokens of an example's longest source."""
    return max(map(len, sources(feature)))
