"""The difference of two shares of the same images."""

import numpy as np
import pytest

from routerbench.stats.matched import matched_difference


def test_by_hand() -> None:
    # Of 8 images a has 2 right that b has wrong, and b 1 that a has wrong.
    a = np.array([True, True, True, False, True, True, False, False])
    b = np.array([False, False, True, True, True, True, False, False])
    found = matched_difference(a, b, 0.95)
    more, less = 2.5 / 10, 1.5 / 10
    half = 1.959964 * ((more + less - 0.1**2) / 10) ** 0.5
    assert (found.mean, found.n) == (1 / 8, 8)
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half), abs=1e-6)


def test_where_nothing_differs_the_interval_is_not_empty() -> None:
    same = np.ones(100, bool)
    found = matched_difference(same, same, 0.95)
    assert found.mean == 0
    assert -0.03 < found.low < 0 < found.high < 0.03


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        draw = rng.random(300)  # 4 % are right in a alone, 2 % in b alone
        found = matched_difference(draw < 0.64, (draw < 0.6) | (draw > 0.98), 0.95)
        held += found.low <= 0.02 <= found.high
    assert 930 <= held <= 975
