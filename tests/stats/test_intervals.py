import math

import numpy as np
import pytest
from scipy import stats

from routerbench.stats import Estimate, paired_difference, proportion_interval, t_interval


def test_t_interval_by_hand() -> None:
    # Mean 2, standard deviation 1, and t(0.975, 2 degrees of freedom) = 4.302653 over the root of 3.
    estimate = t_interval([1.0, 2.0, 3.0], 0.95)
    assert (estimate.mean, estimate.n) == (2.0, 3)
    assert estimate.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert estimate.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_t_interval_is_that_of_scipy(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(0.7, 0.01, n).tolist()
    expected = stats.t.interval(confidence, n - 1, loc=np.mean(values), scale=stats.sem(values))
    estimate = t_interval(values, confidence)
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_one_value_has_no_interval() -> None:
    estimate = t_interval([0.7], 0.95)
    assert (estimate.mean, estimate.n) == (0.7, 1)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_no_value_has_no_mean() -> None:
    estimate = t_interval([], 0.95)
    assert estimate.n == 0
    assert all(math.isnan(value) for value in (estimate.mean, estimate.low, estimate.high))


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert t_interval([0.5, 0.5, 0.5], 0.95) == Estimate(0.5, 0.5, 0.5, 3)


def test_paired_difference_is_that_of_scipy() -> None:
    a, b = np.random.default_rng(0).normal([0.7, 0.69], 0.01, (5, 2)).T.tolist()
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    difference = paired_difference(dict(enumerate(a)), dict(enumerate(b)), 0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_paired_difference_takes_the_common_seeds() -> None:
    # Seeds 1 and 3 are on both sides, in whatever order: differences 1 and 3.
    difference = paired_difference({3: 8.0, 1: 2.0, 0: 99.0}, {1: 1.0, 2: 99.0, 3: 5.0}, 0.95)
    assert (difference.mean, difference.n) == (2.0, 2)


def test_paired_difference_without_common_seed() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}, 0.95).n == 0


def test_seeds_of_equal_difficulty_cancel() -> None:
    # The seeds vary by tenths, the difference between the two sides does not at all.
    difference = paired_difference({0: 1.25, 1: 2.25, 2: 3.25}, {0: 1.0, 1: 2.0, 2: 3.0}, 0.95)
    assert difference == Estimate(0.25, 0.25, 0.25, 3)


@pytest.mark.parametrize(("count", "n"), [(0, 5), (3, 7), (950, 1000), (1, 1)])
def test_the_interval_of_a_share_is_wilson_s(count: int, n: int) -> None:
    expected = stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert proportion_interval(count, n, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-12)
