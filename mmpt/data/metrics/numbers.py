"""Correlations of numbers that are written as text (regression).

Letters: N examples, R samples, U distinct values.
"""

from __future__ import annotations

import numpy as np

from mmpt.data.metrics.answers import Answers, Floats
from mmpt.data.metrics.forms import UNREADABLE, is_number, number
from mmpt.data.metrics.metric import Metric, of_sums, ratio


def _pairs(answers: Answers) -> Floats:
    """(N, 2): target and prediction as numbers."""
    read = ((number(target), number(text)) for target, text in zip(answers.targets, answers.predictions, strict=True))
    return np.array([[UNREADABLE if value is None else value for value in pair] for pair in read])


def _moments(answers: Answers) -> Floats:
    """(N, 6): 1, x, y, x², y², xy, around the means so that large numbers lose no digits."""
    x, y = (column - column.mean() for column in _pairs(answers).T)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _correlation(sums: Floats) -> Floats:
    """Pearson's r from sums of :func:`_moments`; 0 where one side does not vary."""
    n, x, y, xx, yy, xy = (sums[..., index] for index in range(6))
    spread = [
        np.where(n * square - one * one > 1e-12 * n * square, n * square - one * one, 0.0)  # below it: rounding
        for one, square in ((x, xx), (y, yy))
    ]
    return np.clip(ratio(n * xy - x * y, np.sqrt(spread[0] * spread[1])), -1, 1)


def _rank_correlation(counts: Floats, weights: Floats) -> Floats:
    """Spearman's rho of R samples: Pearson's r of the ranks that values have within each sample, ties averaged."""
    x, y = (_ranks(column, weights) for column in counts.T)  # (R, N)
    total = weights.sum(axis=1, keepdims=True)
    x, y = (rank - (weights * rank).sum(axis=1, keepdims=True) / total for rank in (x, y))
    together, across, down = ((weights * one * other).sum(axis=1) for one, other in ((x, y), (x, x), (y, y)))
    return ratio(together, np.sqrt(across * down))


def _ranks(values: Floats, weights: Floats) -> Floats:
    """(R, N) average rank of each of N values in samples with weights (R, N)."""
    distinct, at = np.unique(values, return_inverse=True)
    held = np.stack([np.bincount(at, weights=row, minlength=len(distinct)) for row in weights])  # (R, U)
    return (held.cumsum(axis=1) - (held - 1) / 2)[:, at]


def _no_correlation(classes: int) -> float:
    return 0.0


PEARSON = Metric("pearson", _moments, of_sums(_correlation), _no_correlation, is_number, (-1.0, 1.0))
SPEARMAN = Metric("spearman", _pairs, _rank_correlation, _no_correlation, is_number, (-1.0, 1.0))
