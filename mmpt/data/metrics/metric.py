"""One metric: counts for each example, and a value of any weighted sample of them.

Letters: N examples, K counts, R samples, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmpt.data.metrics.answers import Answers, Floats

_ENTRIES = 2_000_000  # of a matrix of weights: bounds the memory of a bootstrap


def _no_chance(classes: int) -> float | None:
    return None


@dataclass(frozen=True)
class Metric:
    """A number between predictions and targets.

    Attributes:
        name: What results call it.
        counts: ``Answers`` of N examples -> (N, K), what the metric needs to know of each example.
        value: Counts (N, K) and weights (R, N), how often each example occurs in each of R samples -> (R,). Where it is
            a formula on sums of counts, :func:`of_sums` makes it.
        chance: Number of labels (0: free text) -> the value of guessing evenly; None where it depends on the data.
        target: What every target must be, as ``text -> whether it is one``; checked when the data is read.
        range: The least and the greatest value; None where there are none. Reports bring scores to points by it.
    """

    name: str
    counts: Callable[[Answers], Floats]
    value: Callable[[Floats, Floats], Floats]
    chance: Callable[[int], float | None] = _no_chance
    target: Callable[[str], bool] = bool
    range: tuple[float, float] | None = (0.0, 1.0)

    @classmethod
    def mean(
        cls,
        name: str,
        score: Callable[[str, str], float],
        chance: Callable[[int], float | None] = _no_chance,
        range: tuple[float, float] | None = (0.0, 1.0),
    ) -> Metric:
        """A metric that is the mean of a score for each example.

        Args:
            name: What results call it.
            score: Prediction and target -> the score of one example.
            chance: See the class.
            range: See the class.
        """

        def counts(answers: Answers) -> Floats:
            pairs = zip(answers.predictions, answers.targets, strict=True)
            return with_ones(np.array([score(text, target) for text, target in pairs], dtype=np.float64))

        return cls(name, counts, of_sums(share), chance, range=range)

    def of(self, answers: Answers) -> float:
        """The value over all examples."""
        counts = self.counts(answers)
        return float(self.value(counts, np.ones((1, len(counts))))[0])

    def resample(self, answers: Answers, resamples: int, seed: int | Sequence[int]) -> Floats:
        """The value of each sample of a bootstrap, (resamples,); groups are drawn as a whole.

        Args:
            answers: N examples.
            resamples: How many samples to draw.
            seed: Seed of the draws, of one number or several.
        """
        counts = self.counts(answers)
        rng = np.random.default_rng(seed)
        groups = int(answers.groups.max()) + 1
        size = max(1, _ENTRIES // len(counts))
        values = []
        for start in range(0, resamples, size):
            drawn = rng.integers(0, groups, size=(min(size, resamples - start), groups))
            values.append(self.value(counts, _weights(drawn)[:, answers.groups]))
        return np.concatenate(values)


def of_sums(formula: Callable[[Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    """Make a :attr:`Metric.value` from a formula on sums of counts: (..., K) -> (...)."""
    return lambda counts, weights: formula(weights @ counts)


def share(sums: Floats) -> Floats:
    """The mean, of sums (..., 2) of a score and of ones."""
    return sums[..., 0] / sums[..., 1]


def with_ones(scores: Floats) -> Floats:
    """(N, 2): scores (N,) beside ones, as :func:`share` reads their sums."""
    return np.stack([scores, np.ones_like(scores)], axis=1)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; 0 where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _weights(drawn: np.ndarray) -> Floats:
    """(R, G) how often each group occurs among those drawn, (R, G)."""
    rows, groups = drawn.shape
    cells = drawn + np.arange(rows)[:, None] * groups
    return np.bincount(cells.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)
