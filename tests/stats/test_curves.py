import numpy as np
import pytest

from routerbench.stats import scores_at

COSTS = np.array([1.0, 4.0, 64.0])
SCORES = np.array([[0.2, 0.3], [0.4, 0.4], [0.7, np.nan]])  # three scales, two seeds; one run is missing


def test_half_way_is_half_way_in_the_logarithm() -> None:
    # 2 lies between 1 and 4 half way in the logarithm; 16 is 4 times 4, and 64 is 16 times 4: half way too.
    assert scores_at(2.0, COSTS, SCORES) == pytest.approx([0.3, 0.35])
    assert scores_at(16.0, COSTS, SCORES)[0] == pytest.approx(0.55)


def test_a_scale_is_met_exactly_though_its_neighbour_is_missing() -> None:
    assert [scores_at(cost, COSTS, SCORES).tolist() for cost in (1.0, 4.0)] == [[0.2, 0.3], [0.4, 0.4]]


def test_a_seed_without_the_scale_beside_the_cost_has_no_score_there() -> None:
    assert np.isnan(scores_at(16.0, COSTS, SCORES)).tolist() == [False, True]
    gap = np.array([[0.2], [np.nan], [0.7]])  # never from 1 to 64 across the gap at 4
    assert np.isnan(scores_at(2.0, COSTS, gap)).all()


@pytest.mark.parametrize("cost", [0.999, 64.001])
def test_nothing_is_extrapolated(cost: float) -> None:
    assert np.isnan(scores_at(cost, COSTS, SCORES)).all()


def test_one_scale_has_its_own_cost_alone() -> None:
    one = np.array([2.0])
    assert scores_at(2.0, one, np.array([[0.5, 0.6]])).tolist() == [0.5, 0.6]
    assert np.isnan(scores_at(2.1, one, np.array([[0.5, 0.6]]))).all()


def test_between_the_scales_it_is_numpys_interpolation() -> None:
    rng = np.random.default_rng(0)
    costs, scores = np.sort(rng.lognormal(size=6)), rng.random((6, 3))
    for cost in rng.uniform(costs[0], costs[-1], 50):
        expected = [np.interp(np.log(cost), np.log(costs), own) for own in scores.T]
        assert scores_at(cost, costs, scores) == pytest.approx(expected)
