"""What metrics compare: the targets of a split and the predicted texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpt.data.metrics.forms import nfc, normalise

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """N targets and N predictions.

    Attributes:
        targets: Label words or free texts.
        predictions: Label words or generated texts.
        truth: (N,) int64, the label of each target; -1 for free text.
        guess: (N,) int64, the label that each prediction means; -1 where it is not a label.
        groups: (N,) int64, the number of each example's group, from 0 on; without groups, of the example itself.
        classes: How many labels the task has; 0 for free text.
    """

    targets: tuple[str, ...]
    predictions: tuple[str, ...]
    truth: Ints
    guess: Ints
    groups: Ints
    classes: int

    @property
    def right(self) -> Floats:
        """(N,) float64, 1 where the prediction is the target."""
        if self.classes:
            return (self.truth == self.guess).astype(np.float64)
        pairs = zip(self.targets, self.predictions, strict=True)
        return np.array([normalise(target) == normalise(text) for target, text in pairs], dtype=np.float64)


def label_indices(words: Sequence[str], texts: Sequence[str]) -> Ints:
    """The label that each text means.

    Args:
        words: The label words. Where :func:`normalise` would make two of them equal, it is not applied.
        texts: N predictions.

    Returns:
        (N,) int64, -1 where a text is not a label.
    """
    same: Callable[[str], str] = normalise
    if len({normalise(word) for word in words}) < len(words):
        same = _stripped
    known = {same(word): index for index, word in enumerate(words)}
    return np.array([known.get(same(text), -1) for text in texts], dtype=np.int64)


def _stripped(text: str) -> str:
    return nfc(text).strip()
