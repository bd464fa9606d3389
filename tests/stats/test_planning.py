"""How many seeds a comparison needs: a textbook case, the pairs it stands for, and simulated power."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from routerbench.stats import Spread, paired_p, paired_spread, seeds_needed


def known(spread: Spread | None) -> tuple[float, int, int]:
    assert spread is not None
    return spread.deviation, spread.freedom, spread.num_scores


def test_two_rows_have_the_deviation_of_their_differences() -> None:
    # Differences 1, 2 and 3: deviation 1, two degrees of freedom.
    spread = paired_spread({"a": {0: 5.0, 1: 7.0, 2: 9.0}, "b": {0: 4.0, 1: 5.0, 2: 6.0}})
    assert known(spread) == pytest.approx((1.0, 2, 6))


def test_all_pairs_are_pooled() -> None:
    table = np.random.default_rng(0).normal(size=(5, 4))
    variances = [np.var(a - b, ddof=1) for a, b in itertools.combinations(table, 2)]
    spread = paired_spread({str(row): dict(enumerate(scores)) for row, scores in enumerate(table)})
    assert known(spread) == pytest.approx((math.sqrt(np.mean(variances)), 4 * 3, 20))


def test_what_seeds_share_is_no_spread() -> None:
    table = np.random.default_rng(0).normal(size=(3, 4))
    shifted = table + 100 * np.arange(4) + 10 * np.arange(3)[:, None]
    one, other = (
        paired_spread({str(row): dict(enumerate(scores)) for row, scores in enumerate(scores_of)})
        for scores_of in (table, shifted)
    )
    assert one is not None
    assert other is not None
    assert one.deviation == pytest.approx(other.deviation)


def test_rows_that_lack_seeds_count_for_what_they_have() -> None:
    # c has one seed and tells nothing; a - b is 1 and 3.
    spread = paired_spread({"a": {0: 1.0, 1: 3.0}, "b": {0: 0.0, 1: 0.0}, "c": {7: 9.0}})
    assert known(spread) == pytest.approx((math.sqrt(2), 1, 5))


@pytest.mark.parametrize("scores", [{}, {"a": {0: 1.0, 1: 2.0}}, {"a": {0: 1.0, 1: 2.0}, "b": {1: 0.0}}])
def test_nothing_is_known_without_two_common_seeds(scores: dict[str, dict[int, float]]) -> None:
    assert paired_spread(scores) is None


def test_the_upper_limit_is_that_of_chi_square() -> None:
    # With two degrees of freedom the quantile is -2 log(confidence): sqrt(2 / -2 log 0.8).
    assert Spread(1.0, 2, 6).upper(0.8) == pytest.approx(math.sqrt(-1 / math.log(0.8)))
    rng = np.random.default_rng(0)
    limits = [
        spread.upper(0.8)
        for table in rng.normal(size=(500, 3, 3))
        if (spread := paired_spread({str(row): dict(enumerate(each)) for row, each in enumerate(table)}))
    ]
    assert np.mean(np.array(limits) > math.sqrt(2)) == pytest.approx(0.8, abs=0.04)


def test_the_textbook_case() -> None:
    # Half a deviation at level 0.05 with power 0.8 takes 34 pairs (Cohen 1988, table 2.4.1; G*Power).
    assert seeds_needed(0.5, 1.0, 0.05, 0.8) == 34
    assert seeds_needed(0.005, 0.01, 0.05, 0.8) == 34


@pytest.mark.parametrize("ratio", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 36])
def test_it_is_the_first_number_with_that_power(ratio: float, alpha: float) -> None:
    def power(n: int) -> float:
        critical = float(stats.t.ppf(1 - alpha / 2, n - 1))
        return float(stats.nct.sf(critical, n - 1, ratio * math.sqrt(n)))

    n = seeds_needed(ratio, 1.0, alpha, 0.8)
    assert n is not None
    assert power(n) >= 0.8
    assert n == 2 or power(n - 1) < 0.8


def test_no_spread_takes_two_seeds_and_a_tiny_difference_has_no_number() -> None:
    assert seeds_needed(0.1, 0.0, 0.05, 0.8) == 2
    assert seeds_needed(1e-9, 1.0, 0.05, 0.8) is None


def test_simulated_boards_have_the_power() -> None:
    # Ten pairs; one row is 0.5 better than another, with as many seeds as Holm's first step needs.
    n = seeds_needed(0.5, math.sqrt(2), 0.05 / 10, 0.8)
    assert n is not None
    draws = np.random.default_rng(0).normal(size=(2_000, 2, n))
    found = paired_p(draws[:, 1] + 0.5 - draws[:, 0]) < 0.05 / 10
    assert found.mean() == pytest.approx(0.8, abs=0.03)
