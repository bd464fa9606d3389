import math

import numpy as np
import pytest
from scipy import stats

from routerbench.stats import effect_over_cells, holm_levels


def test_two_cells_by_hand() -> None:
    effect = effect_over_cells([[1.0, 2.0, 3.0], [4.0, 8.0]])
    # Means 2 and 6. Variances 1 and 8, of the means 1/3 and 4: their sum over 2^2 is 13/12.
    assert effect.mean == 4
    assert effect.standard_error == pytest.approx(math.sqrt(13 / 12))
    # The cell of two seeds has one degree of freedom.
    assert effect.degrees_of_freedom == 1
    assert (effect.num_cells, effect.n, effect.testable) == (2, 5, True)


def test_one_cell_is_the_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    effect = effect_over_cells([list(a - b)])
    told = stats.ttest_rel(a, b)
    assert 2 * min(effect.p_above(0.0), effect.p_below(0.0)) == pytest.approx(told[1])
    interval, by_scipy = effect.interval(0.9), told.confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((by_scipy.low, by_scipy.high))
    above, below = (stats.ttest_1samp(a - b, -0.3, alternative=side)[1] for side in ("greater", "less"))
    assert (effect.p_above(-0.3), effect.p_below(-0.3)) == pytest.approx((above, below))


def test_two_cells_are_welchs_test_with_the_fewer_degrees_of_freedom() -> None:
    a, b = np.random.default_rng(1).normal(size=4), np.random.default_rng(2).normal(size=7)
    # Half of a - b: with b's sign turned, the mean over the two cells.
    effect = effect_over_cells([list(a), list(-b)])
    t, p_of_welch = map(float, np.asarray(stats.ttest_ind(a, b, equal_var=False)))
    assert effect.mean == pytest.approx((a.mean() - b.mean()) / 2)
    p = 2 * min(effect.p_above(0.0), effect.p_below(0.0))
    assert p == pytest.approx(2 * stats.t.sf(abs(t), 4 - 1))
    assert p > p_of_welch


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_intervals_over_one_cell_cover_what_they_say(num_seeds: int) -> None:
    draws = np.random.default_rng(0).normal(0.2, 1, (1500, 1, num_seeds))
    intervals = [effect_over_cells(cells.tolist()).interval(0.95) for cells in draws]
    assert 0.93 <= np.mean([interval.low < 0.2 < interval.high for interval in intervals]) <= 0.97


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("num_cells", [1, 2, 5, 9])
@pytest.mark.parametrize("spread", [1, 5, 10])
def test_levels_hold_for_cells_of_unlike_spread(spread: float, num_cells: int, num_seeds: int) -> None:
    scales = np.array([spread, *[1.0] * (num_cells - 1)])
    draws = np.random.default_rng(0).normal(size=(1500, num_cells, num_seeds)) * scales[:, None]
    effects = [effect_over_cells(cells.tolist()) for cells in draws]
    p_values = np.array([2 * min(one.p_above(0.0), one.p_below(0.0)) for one in effects])
    for level in (0.05, 0.004):
        missed = [not one.interval(1 - level).low < 0 < one.interval(1 - level).high for one in effects]
        assert missed == (p_values <= level).tolist()
        assert np.mean(missed) <= level + 2.5 * math.sqrt(level * (1 - level) / len(draws))


def test_a_cell_with_one_seed_says_nothing_beside_others() -> None:
    effect = effect_over_cells([[1.0, 2.0, 3.0], [50.0], []])
    assert (effect.mean, effect.num_cells, effect.n) == (2, 1, 3)


@pytest.mark.parametrize("cells", [[[0.5], [1.5]], [[1.0, 1.0, 1.0]], [[0.1 + 0.2 - 0.3 + 1, 1.0]]])
def test_without_spread_nothing_is_claimed(cells: list[list[float]]) -> None:
    effect = effect_over_cells(cells)
    assert effect.mean == pytest.approx(1)
    assert (effect.p_above(0.0), effect.p_below(0.0), effect.testable) == (1, 1, False)
    assert math.isnan(effect.interval(0.95).low)


def test_without_any_difference_there_is_no_effect() -> None:
    effect = effect_over_cells([[]])
    assert math.isnan(effect.mean)
    assert (effect.num_cells, effect.n, effect.testable) == (0, 0, False)


def test_holms_levels_by_hand() -> None:
    # 0.01 <= 0.05 / 3, 0.02 <= 0.05 / 2, 0.04 <= 0.05.
    assert holm_levels([0.04, 0.01, 0.02], 0.05) == pytest.approx([0.05, 0.05 / 3, 0.025])
    # 0.03 > 0.05 / 2: from there on all are held against that.
    assert holm_levels([0.04, 0.01, 0.03], 0.05) == pytest.approx([0.025, 0.05 / 3, 0.025])
    assert holm_levels([0.02, 0.02], 0.05) == pytest.approx([0.025, 0.05])
    assert holm_levels([], 0.05) == []


def test_holms_levels_are_holms_corrected_p() -> None:
    for p_values in np.random.default_rng(0).beta(0.3, 3, (200, 6)):
        # Holm's corrected p: the running largest of (m - step) p.
        order = np.argsort(p_values)
        corrected = np.empty(6)
        corrected[order] = np.maximum.accumulate(p_values[order] * np.arange(6, 0, -1))
        levels = holm_levels(p_values.tolist(), 0.05)
        assert (p_values <= levels).tolist() == (corrected <= 0.05).tolist()
