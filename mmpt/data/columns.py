"""Columns of examples, whether these are objects or rows of an Arrow file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

BATCH = 1000  # rows that are read at once


def values(examples: Sequence[Any], *names: str) -> Iterator[tuple[Any, ...]]:
    """Some attributes of every example; of stored ones no other column is read."""
    rows = getattr(examples, "rows", examples)  # of mmpt.data.stored.StoredExamples
    if not hasattr(rows, "select_columns"):
        yield from (tuple(getattr(example, name) for name in names) for example in examples)
        return
    for batch in rows.select_columns(list(names)).iter(BATCH):
        yield from zip(*(batch[name] for name in names), strict=True)
