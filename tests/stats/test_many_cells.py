import math

import numpy as np
import pytest
from scipy import stats

from routerbench.stats import (
    average_ranks,
    critical_difference,
    friedman_p,
    groups_within,
    place_interval,
    places,
    rank_correlation,
)

# Demsar 2006, table 5a: quantiles for the two-tailed Nemenyi test at 0.05, by the number of rows.
DEMSAR = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


def test_average_ranks_by_hand() -> None:
    # First cell: 0.9, 0.8, 0.7 are 1, 2, 3. Second: the first two tie for 1 and 2, so 1.5 each.
    scores = np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.1]])
    assert average_ranks(scores).tolist() == [1.25, 1.75, 3.0]
    assert average_ranks(np.stack([scores, scores[:, ::-1]])).tolist()[1] == [3.0, 1.75, 1.25]


def test_friedman_is_that_of_scipy() -> None:
    scores = np.random.default_rng(0).normal(size=(9, 4)) + np.array([0, 0.5, 1, 0])
    assert friedman_p(scores) == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    # Three rows in the same order in four cells: chi² = 12 * 4 / (3 * 4) * (1 + 0 + 1) = 8, p = exp(-4).
    assert friedman_p(np.array([[3.0, 2.0, 1.0]] * 4)) == pytest.approx(math.exp(-4))


def test_friedman_has_nothing_to_say_of_two_rows_or_of_ties() -> None:
    assert math.isnan(friedman_p(np.array([[1.0, 2.0]] * 5)))
    assert math.isnan(friedman_p(np.ones((5, 3))))


@pytest.mark.parametrize("num_rows", DEMSAR)
@pytest.mark.parametrize("num_cells", [8, 14])
def test_critical_difference_is_that_of_demsars_table(num_rows: int, num_cells: int) -> None:
    expected = DEMSAR[num_rows] * math.sqrt(num_rows * (num_rows + 1) / (6 * num_cells))
    # The table has three decimals, of which some are cut and not rounded (2.343 for 2.3437).
    assert critical_difference(num_rows, num_cells, 0.05) == pytest.approx(expected, rel=4e-4)


def test_critical_difference_of_demsars_example() -> None:
    # Section 3.2.2: four classifiers on 14 data sets, at 0.05: 1.25.
    assert critical_difference(4, 14, 0.05) == pytest.approx(1.25, abs=0.005)


def test_groups_by_hand() -> None:
    # Within 1: 1.0 to 1.8, 1.8 to 2.5; 4.0 stands alone. 1.8 to 2.5 is no part of the first.
    assert groups_within([2.5, 1.0, 4.0, 1.8], 1.0) == [(1.0, 1.8), (1.8, 2.5)]
    assert groups_within([1.0, 1.5, 1.9], 1.0) == [(1.0, 1.9)]
    assert groups_within([1.0, 2.0], 1.0) == []  # a difference that reaches the critical one counts
    assert groups_within([1.5, 1.5], 1.0) == [(1.5, 1.5)]


def test_places_count_who_is_better() -> None:
    assert places(np.array([1.2, 2.0, 2.0, 3.1])).tolist() == [1, 2, 2, 4]


def test_place_interval_leaves_the_tails_out() -> None:
    resampled = np.array([1] * 1 + [2] * 50 + [3] * 48 + [9] * 1)
    assert place_interval(resampled, 0.95) == (2, 3)
    assert place_interval(np.array([4, 4]), 0.95) == (4, 4)


def test_rank_correlation_by_hand() -> None:
    # Of the six pairs of four rows one is turned around: (5 - 1) / 6.
    assert rank_correlation(np.array([4, 3, 2, 1]), np.array([4, 3, 1, 2])) == pytest.approx(4 / 6)
    assert rank_correlation(np.array([1, 2]), np.array([2, 1])) == -1
    assert np.isnan(rank_correlation(np.array([1, 1]), np.array([2, 1])))


def test_rank_correlation_is_kendalls_tau_b() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, (20, 7)), rng.integers(0, 6, (20, 7))
    expected = [stats.kendalltau(a, b)[0] for a, b in zip(one, other, strict=True)]
    assert rank_correlation(one, other) == pytest.approx(expected)
