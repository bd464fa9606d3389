from itertools import permutations

import numpy as np

from routerbench.stats import open_places


def before(num: int, *pairs: tuple[int, int]) -> np.ndarray:
    better = np.zeros((num, num), dtype=bool)
    for first, second in pairs:
        better[first, second] = True
    return better


def test_nothing_decided_leaves_all_open() -> None:
    assert open_places(before(3)) == [(1, 3)] * 3
    assert open_places(before(0)) == []


def test_two_decisions_through_a_third() -> None:
    # 0 before 1 before 2: of four, 0 cannot be behind two others; 3 may be anywhere.
    assert open_places(before(4, (0, 1), (1, 2))) == [(1, 2), (2, 3), (3, 4), (1, 4)]


def test_a_circle_stays_open() -> None:
    # 0, 1, 2 in a circle, all before 3.
    assert open_places(before(4, (0, 1), (1, 2), (2, 0), (2, 3))) == [(1, 3)] * 3 + [(4, 4)]


def test_the_places_are_those_of_all_orders_that_agree() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        better = np.triu(generator.random((5, 5)) < 0.3, 1)
        orders = [
            order
            for order in permutations(range(5))
            if all(order.index(i) < order.index(j) for i, j in np.argwhere(better))
        ]
        places = [[order.index(row) + 1 for order in orders] for row in range(5)]
        assert open_places(better) == [(min(own), max(own)) for own in places]
