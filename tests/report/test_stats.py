"""Statistics against SciPy, worked examples, and simulation."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from mmpt.report.stats import combine, describe, holm, mcnemar, paired_bootstrap, paired_t, pareto, t_interval


def test_summary_of_three_seeds() -> None:
    found = describe([0.7, 0.8, 0.9])
    assert (found.n, found.median, found.best) == (3, 0.8, 0.9)
    assert found.mean == pytest.approx(0.8) and found.sd == pytest.approx(0.1)
    expected = scipy_stats.t.interval(0.95, 2, loc=np.log(0.8 / 0.2), scale=0.1 / 3**0.5 / (0.8 * 0.2))
    assert (found.low, found.high) == pytest.approx(tuple(special.expit(expected)))


@pytest.mark.parametrize(
    ("scores", "floor", "top"),
    [
        ((0.2, 0.9, 0.99), 0, 1),
        ((0.001, 0.002, 0.6), 0, 1),
        ((-0.9, 0.1, 0.8), -1, 1),
        ((0.0, 0.0, 1.0), 0, 1),
        ((1.0, 2.0, 60.0), 0, 100),
    ],
)
def test_an_interval_stays_within_the_range(scores: tuple[float, ...], floor: int, top: int) -> None:
    found = describe(scores, (floor, top))
    assert found.low is not None and found.high is not None
    assert floor < found.low < found.mean < found.high < top


def test_an_interval_of_differences_ends_where_they_can_be() -> None:
    found = paired_t([0.9, -0.9, 0.9], 1.0)
    assert (found.low, found.high) == (-1.0, 1.0) and found.p == paired_t([0.9, -0.9, 0.9]).p
    assert paired_t([0.1, 0.2, 0.3], 1.0) == paired_t([0.1, 0.2, 0.3])


def test_scores_without_a_range_have_the_plain_interval() -> None:
    assert describe([20.0, 30.0, 40.0], None).high == t_interval([20.0, 30.0, 40.0])[2]
    found = describe([0.5, 0.5, 0.5])
    assert (found.low, found.high) == (0.5, 0.5)


def test_the_interval_on_the_logit_scale_holds_the_mean_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(1), 0
    for sample in (rng.binomial(200, 0.9, size=(2000, 4)) / 200).tolist():
        found = describe(sample)
        assert found.low is not None and found.high is not None
        inside += found.low <= 0.9 <= found.high
    assert 0.93 <= inside / 2000 <= 0.97


def test_two_seeds_have_no_interval() -> None:
    found = describe([0.7, 0.8])
    assert found.sd is not None and (found.low, found.high) == (None, None)
    assert paired_t([0.1, 0.2]).low is None and paired_t([0.1, 0.2]).p is not None


def test_one_seed_has_no_spread() -> None:
    found = describe([0.7])
    assert (found.mean, found.sd, found.low, found.high) == (0.7, None, None, None)


def test_t_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for sample in rng.normal(5, 2, size=(2000, 4)).tolist():
        _, low, high = t_interval(sample)
        assert low is not None and high is not None
        inside += low <= 5 <= high
    assert 0.935 <= inside / 2000 <= 0.965


def test_paired_t_is_scipys() -> None:
    first, second = [0.71, 0.74, 0.69, 0.80], [0.70, 0.70, 0.66, 0.75]
    expected = scipy_stats.ttest_rel(first, second)
    found = paired_t([a - b for a, b in zip(first, second, strict=True)])
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert paired_t([0.1, 0.1]).p is None and paired_t([0.1]).p is None
    assert paired_t([(n + 1) / 56 - n / 56 for n in (40, 41, 42)]).p is None  # one example more with each seed


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 15), (8, 8), (0, 12)])
def test_mcnemar_is_the_binomial_test(b: int, c: int) -> None:
    expected = scipy_stats.binomtest(min(b, c), b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_bootstrap_agrees_with_the_normal_approximation() -> None:
    rng = np.random.default_rng(2)
    values = rng.choice([-1.0, 0.0, 0.0, 1.0, 1.0], size=800)
    found = paired_bootstrap(values.tolist())
    error = values.std() / len(values) ** 0.5
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert found.p is not None and found.p < 0.001
    assert paired_bootstrap([0.0] * 10).p == 1.0
    assert paired_bootstrap(values.tolist()) == found


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_over_seeds() -> None:
    assert combine([0.02]) == 0.02
    assert combine([0.02, 0.04]) == pytest.approx(0.06)
    assert combine([0.9, 0.8]) == 1.0


def test_pareto_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(3)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 12, size=(60, 2))]
    beaten = {
        i
        for i, j in itertools.permutations(range(len(points)), 2)
        if points[j][0] <= points[i][0] and points[j][1] >= points[i][1] and points[i] != points[j]
    }
    assert sorted(pareto(points)) == sorted(set(range(len(points))) - beaten)
    assert pareto([]) == []


def test_sd_is_the_samples() -> None:
    assert describe([0.1, 0.4]).sd == pytest.approx(statistics.stdev([0.1, 0.4]))
