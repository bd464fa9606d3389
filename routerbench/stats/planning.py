"""How many seeds a comparison needs, from the spread of a pilot."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from routerbench.stats.paired import smallest_detectable

MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Spread:
    """The standard deviation of differences that are paired by seed, and how well it is known."""

    deviation: float
    """In the unit of the scores."""
    freedom: int
    num_scores: int

    def upper(self, confidence: float) -> float:
        """What the deviation does not exceed with this confidence, one-sided, for normal scores."""
        return self.deviation * math.sqrt(self.freedom / float(special.chdtri(self.freedom, confidence)))


def paired_spread(scores: Mapping[str, Mapping[int, float]]) -> Spread | None:
    """The spread of differences between rows, pooled over all pairs; scores by row and seed.

    None below two rows with two common seeds. It is that of what is left of the scores without a mean of
    each row and of each seed: where every row has every seed, twice its mean square is the average of the
    pairs' variances exactly, and its degrees of freedom are (rows - 1)(seeds - 1), fewer than those of all
    pairs together, which count each run many times.
    """
    found = [(row, seed, score) for row, of_row in scores.items() for seed, score in of_row.items()]
    if not found:
        return None
    rows, seeds, values = zip(*found, strict=True)
    effects = np.hstack([_indicators(rows), _indicators(seeds)])
    fitted, _, rank, _ = np.linalg.lstsq(effects, np.array(values), rcond=None)
    freedom = len(values) - int(rank)
    if freedom < 1:
        return None
    square = float(np.sum((np.array(values) - effects @ fitted) ** 2)) / freedom
    return Spread(math.sqrt(2 * square), freedom, len(values))


def seeds_needed(difference: float, deviation: float, alpha: float, power: float) -> int | None:
    """The fewest seeds with which the two-sided paired t-test finds this difference so often.

    Both in one unit; at least two, and None where more than MOST_SEEDS are needed.
    """

    def enough(n: int) -> bool:
        return smallest_detectable(deviation, n, alpha, power) <= difference

    fewest, most = 1, 2
    while not enough(most):
        fewest, most = most, 2 * most
        if most > MOST_SEEDS:
            return None
    while most - fewest > 1:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if enough(middle) else (middle, most)
    return most


def _indicators(names: tuple[object, ...]) -> np.ndarray:
    """(scores, distinct names): 1 where the score is of this name."""
    return np.array([[float(name == one) for one in dict.fromkeys(names)] for name in names])
