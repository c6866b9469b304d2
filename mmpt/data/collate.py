"""From token ids of examples to padded batches.

Letters: B examples, T source tokens, C sources or continuations of an example, U target tokens, V tokens of a
continuation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpt.data.tokenized import RowStates, longest_source, sources

IGNORED = -100  # the label value that cross-entropy skips
SOURCES = ("input_ids", "attention_mask", "token_type_ids")  # tensors of a batch with a row for each source


@dataclass(frozen=True)
class Collator:
    """Pads features to a batch.

    Attributes:
        pad_token_id: What fills ``input_ids``.
    """

    pad_token_id: int

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pad at the right to the longest of the batch.

        Args:
            features: B features of a :class:`mmpt.data.tokenized.TokenizedSplit`; a batch has what its first has.

        Returns:
            int64 tensors: ``input_ids`` and ``attention_mask`` (B, T), or (B, C, T) for examples with C sources,
            ``token_type_ids`` of that shape where there are some, ``labels`` (B, U) and ``continuations`` (B, C, V)
            padded by -100, ``index`` (B,).
        """
        inputs = [ids for feature in features for ids in sources(feature)]
        batch = {
            "input_ids": _padded(inputs, self.pad_token_id),
            "attention_mask": _padded([[1] * len(ids) for ids in inputs], 0),
        }
        if "token_type_ids" in features[0]:
            types = [ids for feature in features for ids in sources(feature, "token_type_ids")]
            batch["token_type_ids"] = _padded(types, 0)
        if isinstance(features[0]["input_ids"][0], list):
            batch = {name: rows.unflatten(0, (len(features), -1)) for name, rows in batch.items()}
        if "labels" in features[0]:
            batch["labels"] = _padded([feature["labels"] for feature in features], IGNORED)
        if "continuations" in features[0]:
            batch["continuations"] = _continuations([feature["continuations"] for feature in features])
        if "index" in features[0]:
            batch["index"] = torch.tensor([int(feature["index"]) for feature in features], dtype=torch.int64)
        return batch


@dataclass(frozen=True)
class CachingCollator:
    """Pads features to a batch, and adds the cached states of their sources where there are any."""

    collate: Collator
    activations: RowStates | None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Batch tensors of :class:`Collator` without ``index``, and those of ``activations``.

        Short sources come first: attention then skips most padding (:mod:`mmpt.attention.absorb`).
        """
        batch = self.collate(sorted(features, key=longest_source))
        rows = batch.pop("index").tolist()
        if self.activations is None:
            return batch
        return {**batch, **self.activations.batch(source_rows(rows, batch))}


def one_source_a_row(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch with each of an example's sources as a row: ids (B, C, T) as (B·C, T)."""
    return {name: values.flatten(0, -2) if name in SOURCES else values for name, values in batch.items()}


def source_rows(rows: Sequence[int], batch: Mapping[str, Tensor]) -> list[int]:
    """Which of all sources of a split the examples ``rows`` of a batch have."""
    ids = batch["input_ids"]
    each = ids.shape[1] if ids.dim() == 3 else 1
    return [row * each + choice for row in rows for choice in range(each)]


def _continuations(examples: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """(B, C, V) int64, padded by -100."""
    most = max(map(len, examples))
    rows = [ids for each in examples for ids in [*each, *[[]] * (most - len(each))]]
    return _padded(rows, IGNORED).unflatten(0, (len(examples), most))


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """(B, longest) int64."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], dtype=torch.int64)
