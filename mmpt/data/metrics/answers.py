"""What metrics compare: the targets of a split and the predicted texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import normalize as unicode_form

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Only what surrounds an answer is removed. Inside it, and in front of a number, a character carries meaning:
# not_entailment is not entailment, -5 is not 5, 3.5 is not 35.
_LEADING = " \t\"'`([{<“”‘’„«"
_TRAILING = " \t\"'`)]}>“”‘’»…。.,;:!?"


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


def normalise(text: str) -> str:
    """Remove differences that do not change an answer.

    These are the Unicode form (NFKC), case, runs of spaces, and punctuation and quotes around the answer.

    Args:
        text: A prediction or a target.
    """
    folded = " ".join(unicode_form("NFKC", unicode_form("NFKC", text).casefold()).split())
    return folded.lstrip(_LEADING).rstrip(_TRAILING) or folded


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
    return unicode_form("NFC", text).strip()
