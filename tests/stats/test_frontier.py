import numpy as np
import pytest

from routerbench.stats import frontier_shares, on_frontier


def test_frontier_by_hand() -> None:
    # Costs 1 2 3 4, scores 5 4 6 6: the second costs more than the first for less, the fourth for no more.
    assert on_frontier(np.array([1, 2, 3, 4]), np.array([5.0, 4, 6, 6])).tolist() == [
        True,
        False,
        True,
        False,
    ]
    # Of two at one cost the better; of two at one cost and score both.
    assert on_frontier(np.array([2, 2]), np.array([5.0, 4.0])).tolist() == [True, False]
    assert on_frontier(np.array([2, 2]), np.array([5.0, 5.0])).tolist() == [True, True]


def test_an_unknown_score_neither_stands_on_it_nor_hides_another() -> None:
    scores = np.array([np.nan, 5.0, np.nan])
    assert on_frontier(np.array([1, 2, 2]), scores).tolist() == [False, True, False]


def test_frontier_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs, scores = rng.integers(0, 5, 8), rng.integers(0, 5, 8).astype(float)
        dominated = [
            any(
                c <= cost and s >= score and (c, s) != (cost, score)
                for c, s in zip(costs, scores, strict=True)
            )
            for cost, score in zip(costs, scores, strict=True)
        ]
        assert on_frontier(costs, scores).tolist() == [not one for one in dominated]


def test_shares_by_hand() -> None:
    # Three seeds, two drawn. The dearer point is better by 0.1 with seeds 0 and 1, worse by 0.15 with seed 2:
    # it wins with 0 or 1 alone, 4 of the 9 draws of two, and loses with seed 2 in any (0.1 - 0.15 < 0).
    costs, cheap = np.array([1.0, 2.0]), np.array([0.5, 0.5, 0.5])
    scores = np.stack([cheap, cheap + np.array([0.1, 0.1, -0.15])])
    shares = frontier_shares(costs, scores, 20_000, np.random.default_rng(0))
    assert shares == pytest.approx([1, 4 / 9], abs=0.02)


def test_a_point_counts_in_the_resamples_that_hold_its_seeds() -> None:
    # Whenever its one seed is drawn the second point is the best.
    scores = np.array([[0.5, 0.5, 0.5], [0.9, np.nan, np.nan], [np.nan] * 3])
    shares = frontier_shares(np.array([1.0, 2.0, 3.0]), scores, 500, np.random.default_rng(0))
    assert shares.tolist() == [1, 1, 0]


def test_one_seed_cannot_be_resampled() -> None:
    shares = frontier_shares(np.array([1.0]), np.array([[0.5]]), 10, np.random.default_rng(0))
    assert np.isnan(shares).all()
