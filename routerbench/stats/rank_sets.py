"""The places that a set of decided pairs leaves open to each of them."""

import numpy as np
from numpy.typing import NDArray


def open_places(better: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last place (from 1) that each of K may have, where (K, K) `better` says that i is before j.

    What follows from two decisions counts: i before j before k. Those that are decided in a circle, which
    happens where pairs stand on different seeds, stay open among themselves.
    """
    before = better.copy()
    for middle in range(len(before)):  # Warshall 1962
        before |= np.outer(before[:, middle], before[middle])
    before &= ~before.T
    firsts, lasts = 1 + before.sum(axis=0), len(before) - before.sum(axis=1)
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]
