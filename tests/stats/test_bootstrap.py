import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from routerbench.stats import (
    drawn_seeds,
    expanded,
    freedom_of,
    freedom_of_sum,
    interquartile_mean,
    percentile_interval,
    probability_of_improvement,
)


def test_the_middle_half_by_hand_and_by_scipy() -> None:
    # Of eight numbers two go at each end: 2, 3, 4, 5 are left. Of three none goes: 0.25 of 3 is below one.
    assert interquartile_mean(np.array([100, 1, 2, 3, 4, 5, -100, 6])) == 3.5
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0
    pooled = np.random.default_rng(0).normal(size=(5, 37))
    assert interquartile_mean(pooled) == pytest.approx([stats.trim_mean(row, 0.25) for row in pooled])


def test_probability_of_improvement_by_hand() -> None:
    # First cell: of the four pairs 2 > 1, 2 = 2 (half), 3 > 1, 3 > 2: 3.5 of 4. Second cell: never.
    cells = [(np.array([2, 3]), np.array([1, 2])), (np.array([0]), np.array([1, 1, 1]))]
    assert probability_of_improvement(cells) == pytest.approx((3.5 / 4 + 0) / 2)


def test_probability_of_improvement_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, 7).astype(float), rng.integers(0, 5, 4).astype(float)
    expected = stats.mannwhitneyu(x, y).statistic / (7 * 4)
    assert probability_of_improvement([(x, y)]) == pytest.approx(expected)
    assert probability_of_improvement([(y, x)]) == pytest.approx(1 - expected)


def test_one_seed_fewer_is_drawn_than_there_are() -> None:
    one, three, five = drawn_seeds([1, 3, 5], ["a", "b", "c"], 2000, np.random.default_rng(0))
    assert (one.shape, three.shape, five.shape) == ((2000, 1), (2000, 2), (2000, 4))
    assert (one == 0).all()
    for drawn, n in ((three, 3), (five, 5)):
        counts = np.bincount(drawn.ravel(), minlength=n)
        assert len(counts) == n
        assert stats.chisquare(counts).pvalue > 1e-3


def test_the_resampled_mean_varies_as_the_mean_does() -> None:
    # s² of 0, 1, 2 is 1, so the mean's variance is 1/3; three out of three would give 2/9.
    (drawn,) = drawn_seeds([3], [0], 100_000, np.random.default_rng(0))
    assert np.array([0.0, 1.0, 2.0])[drawn].mean(axis=1).var() == pytest.approx(1 / 3, rel=0.02)


def test_cells_that_share_runs_are_drawn_together() -> None:
    one, same, other = drawn_seeds([3, 3, 3], ["a", "a", "b"], 50, np.random.default_rng(0))
    assert (one == same).all()
    assert (one != other).any()


def test_an_interval_holds_the_middle_share() -> None:
    # So many degrees of freedom that Student's t is the normal: the middle 90 % of 0 to 100.
    interval = percentile_interval(7.0, np.arange(101.0), 0.9, 10**9)
    assert (interval.value, interval.low, interval.high) == pytest.approx((7.0, 5.0, 95.0))
    assert math.isnan(percentile_interval(7.0, np.full(5, np.nan), 0.9, 4).low)
    assert math.isnan(percentile_interval(7.0, np.arange(5.0), 0.9, 0).low)  # nothing was drawn


def test_few_degrees_of_freedom_take_more_of_the_resamples() -> None:
    # t(0.975, 4) = 2.776, and a normal value lies within 2.776 of its mean in 0.9945 of all cases.
    assert expanded(0.95, 4) == pytest.approx(0.9945, abs=1e-4)
    assert expanded(0.95, 10**9) == pytest.approx(0.95)


def test_freedom_counts_shared_runs_once() -> None:
    # Block a: three seeds at most, so 2; block b: 4; block c has one seed and nothing to draw.
    assert freedom_of([3, 2, 5, 1], ["a", "a", "b", "c"]) == 2 + 4 + 0


def test_freedom_of_a_sum_is_that_of_its_noisy_terms() -> None:
    # Satterthwaite by hand: variances 1 and 9 with 2 degrees each: 10² / (1/2 + 81/2) = 100 / 41.
    one, nine = np.array([-1.0, 1.0]), np.array([-3.0, 3.0])
    assert freedom_of_sum([one, nine], [3, 3], "ab") == pytest.approx(100 / 41)
    assert freedom_of_sum([one, one], [3, 3], "ab") == pytest.approx(freedom_of([3, 3], "ab"))
    # In one block they are one term of variance 16; without any variance all are counted.
    assert freedom_of_sum([one, nine], [3, 3], "aa") == pytest.approx(2)
    assert freedom_of_sum([0 * one, 0 * nine], [3, 3], "ab") == 4
    assert freedom_of_sum([one, 0 * one], [3, 1], "ab") == pytest.approx(2)


def test_one_noisy_cell_of_five_is_covered_better() -> None:
    # 2,000 trials gave 0.907, with the degrees of equal variances 0.874: no draw goes beyond the scores.
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        scores = np.array([[5.0], [1], [1], [1], [1]]) * rng.normal(size=(5, 3))
        drawn = drawn_seeds([3] * 5, range(5), 1000, rng)
        means = [own[places].mean(axis=1) for own, places in zip(scores, drawn, strict=True)]
        freedom = freedom_of_sum(means, [3] * 5, range(5))
        interval = percentile_interval(0.0, np.mean(means, axis=0), 0.95, freedom)
        held.append(interval.low <= 0 <= interval.high)
    assert 0.88 <= np.mean(held) <= 0.97


@pytest.mark.parametrize(("num_cells", "num_seeds"), [(5, 3), (8, 3), (20, 3), (2, 5), (20, 5)])
def test_the_interval_of_the_mean_covers_what_it_says(num_cells: int, num_seeds: int) -> None:
    rng, trials = np.random.default_rng(num_cells), 400
    held = [
        _holds(0.0, lambda pooled: pooled.mean(axis=1), rng.normal(size=(num_cells, num_seeds)), rng)
        for _ in range(trials)
    ]
    # 400 trials of 0.95 have a standard deviation of 0.011; 3,000 of them give 0.940 to 0.951.
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_over_many_cells_the_interquartile_mean_is_covered_too(num_seeds: int) -> None:
    # Twenty cells of unequal difficulty. True value: the interquartile mean of very many seeds of each.
    rng, num_cells, trials = np.random.default_rng(num_seeds), 20, 300
    means = rng.normal(0, 1, (num_cells, 1))
    truth = float(interquartile_mean((means + 0.5 * rng.normal(size=(num_cells, 20_000))).ravel()))
    held = [
        _holds(truth, interquartile_mean, means + 0.5 * rng.normal(size=(num_cells, num_seeds)), rng)
        for _ in range(trials)
    ]
    assert 0.92 <= np.mean(held) <= 0.98


def _holds(
    truth: float, statistic: Callable[..., np.ndarray], scores: np.ndarray, rng: np.random.Generator
) -> bool:
    num_cells, num_seeds = scores.shape
    drawn = drawn_seeds([num_seeds] * num_cells, range(num_cells), 1000, rng)
    pooled = np.concatenate([own[places] for own, places in zip(scores, drawn, strict=True)], axis=1)
    interval = percentile_interval(0.0, statistic(pooled), 0.95, num_cells * (num_seeds - 1))
    return interval.low <= truth <= interval.high
