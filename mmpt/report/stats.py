"""The statistics of a report, on plain numbers. docs/report.md gives each one's formula and source."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
DRAWS = 5_000  # of a bootstrap
FEWEST = 3  # values of an interval: with two, Student's t is 12.7 standard errors wide on each side


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores of one setting over its seeds."""

    n: int
    mean: float
    sd: float | None  # sample standard deviation; None below two
    median: float
    best: float
    low: float | None  # interval for the mean over seeds; None below three
    high: float | None


@dataclass(frozen=True, slots=True)
class Paired:
    """A mean difference with its interval and two-sided p value; None where it is not defined."""

    difference: float
    low: float | None
    high: float | None
    p: float | None


def describe(scores: Sequence[float], ends: tuple[float, float] | None = (0.0, 1.0)) -> Summary:
    """Summarise scores over seeds, at least one: with the sample's deviation and a 95 % interval for the mean.

    The interval is Student's t on the logit scale (delta method), so that it never leaves the range of the metric.

    Args:
        scores: At least one.
        ends: Of the metric's range, with all scores inside; None: not known, for the plain t interval.
    """
    mean, low, high = t_interval(scores)
    floor, span = (ends[0], ends[1] - ends[0]) if ends else (0.0, math.inf)
    share = (mean - floor) / span
    if low is not None and high is not None and high > mean and 0 < share < 1:
        centre, half = math.log(share / (1 - share)), (high - mean) / span / (share * (1 - share))
        low, high = (floor + span * (1 + math.tanh((centre + end) / 2)) / 2 for end in (-half, half))
    sd = statistics.stdev(scores) if len(scores) > 1 else None
    return Summary(len(scores), mean, sd, statistics.median(scores), max(scores), low, high)


def t_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of a sample, and the ends of its 95 % Student's t interval; no ends below three values."""
    mean = statistics.fmean(values)
    if len(values) < FEWEST:
        return mean, None, None
    half = _t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


@functools.cache
def _t_quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def paired_t(differences: Sequence[float], most: float = math.inf) -> Paired:
    """Paired t test of differences on the same seeds; no p value below two seeds or where all are equal.

    Args:
        differences: At least one.
        most: The largest that a difference can be; the interval ends there.
    """
    differences = [round(difference, 12) for difference in differences]  # 2/56 - 1/56 and 3/56 - 2/56 are equal
    mean, low, high = t_interval(differences)
    low, high = (end if end is None else max(-most, min(most, end)) for end in (low, high))
    if len(differences) < 2 or (spread := statistics.stdev(differences)) == 0:
        return Paired(mean, low, high, None)
    from scipy.special import stdtr

    t = abs(mean) / (spread / math.sqrt(len(differences)))
    return Paired(mean, low, high, float(2 * stdtr(len(differences) - 1, -t)))


def paired_bootstrap(differences: Sequence[float]) -> Paired:
    """Paired bootstrap over test examples.

    Args:
        differences: (N,), for each example the method's correctness minus the baseline's, averaged over seeds.

    Returns:
        The mean difference, its percentile interval, and twice the smaller share of resamples on one side of zero
        (both counted with one added), at most 1.
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    kinds, counts = np.unique(np.round(values, 12), return_counts=True)
    # How often each kind of difference is drawn: the same as drawing N examples, in time independent of N.
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), size=DRAWS)
    means = drawn @ kinds / len(values)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    rounded = np.round(means, 12)  # sums of the same numbers in another order are equal
    p = 2 * (1 + min(int((rounded <= 0).sum()), int((rounded >= 0).sum()))) / (DRAWS + 1)
    return Paired(float(values.mean()), float(low), float(high), min(1.0, p))


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test: whether the examples that only one of two gets right are divided evenly.

    Returns:
        Two-sided p value of the binomial test; 1 where there are no such examples.
    """
    n = only_first + only_second
    if n == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5)))


def combine(p_values: Sequence[float]) -> float:
    """One p value from several that depend on each other: twice their mean, at most 1; a single one as it is."""
    return p_values[0] if len(p_values) == 1 else min(1.0, 2 * statistics.fmean(p_values))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number, after Holm, in the same order; None stands for no test."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted


def ranks(values: Iterable[float]) -> dict[float, int]:
    """The place of each value: 1 for the largest, and no place for the equals of another."""
    return {value: place for place, value in enumerate(sorted(set(values), reverse=True), start=1)}


def pareto(points: Iterable[tuple[float, float]]) -> list[int]:
    """Indices, by rising cost, of the points (cost, score) that no other one dominates.

    A point is left out where another costs no more and scores no less, and is better in one of the two.
    """
    listed = list(points)
    front: list[int] = []
    for index in sorted(range(len(listed)), key=lambda i: (listed[i][0], -listed[i][1])):
        if not front or listed[index][1] > listed[front[-1]][1] or listed[index] == listed[front[-1]]:
            front.append(index)
    return front
