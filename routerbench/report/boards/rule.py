"""The report's rule: which pairs of a board are called different, and which equivalent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routerbench.stats import equivalence_p, holm, paired_p

ALPHA = 0.05

Floats = NDArray[np.float64]
Family = Sequence[tuple[int, int]]  # row and reference of each pair, by their place on the board


@dataclass(frozen=True)
class Ruling:
    """Of each pair of a family: corrected p of a difference and of equivalence, nan where it is not tested.

    `sign`: 1 where the row is called better than its reference, -1 where worse, else 0.
    """

    p: Floats
    p_equivalence: Floats
    sign: NDArray[np.int_]


def differences_of(scores: Floats, family: Family) -> Floats:
    """(..., rows, seeds) -> (..., pairs, seeds): each row minus its reference."""
    rows, references = (list(places) for places in zip(*family, strict=True)) if family else ([], [])
    # Accuracies that are equal may differ in their last bits, by which nothing is better than anything.
    return np.round(scores[..., rows, :] - scores[..., references, :], 12)


def rule(differences: Floats, delta: float, resolution: float) -> Ruling:
    """Holm over the family of (..., pairs, seeds) differences, and over the same family's equivalence tests.

    Each of the two makes any false claim at most with chance ALPHA. `delta` and `resolution` as fractions;
    `resolution`: what one test image adds to a score, or the least by which scores of the board differ.
    """
    least = least_deviation(resolution)
    p = holm(paired_p(differences, least))
    sign = np.sign(np.nansum(differences, axis=-1)).astype(int)
    return Ruling(p, holm(equivalence_p(differences, delta, least)), np.where(p < ALPHA, sign, 0))


def least_step(scores: Floats) -> float:
    """The least by which two (rows, seeds) scores differ, 0 where all are equal: no image adds more."""
    known = np.unique(np.round(scores[~np.isnan(scores)], 12))
    return float(np.min(np.diff(known), initial=math.inf)) if len(known) > 1 else 0.0


def least_deviation(resolution: float) -> float:
    """The deviation of two differences that are one image apart; no smaller one is believed.

    Differences of counts are all equal by chance now and then, in which the t-test would see certainty: with
    six equal rows, two seeds and rows that vary by three images 41 % of boards would claim something. With
    this floor it is 5 % at most, for 2 to 10 seeds and rows that vary by 0.3 to 30 images (simulated).
    """
    return resolution / math.sqrt(2)
