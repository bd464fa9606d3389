"""Differences between the rows of a board, paired by seed, and what may be said of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from routerbench.report.cells import DENSE
from routerbench.report.rows import CONFIDENCE, Row
from routerbench.stats import Estimate, paired_difference

Verdict = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Pair:
    """A row against a reference row, both by their place on the board; differences in [-1, 1].

    `p`: two-sided, of the paired t-test, corrected for all pairs of the board. `two_level`: the interval over
    seeds and images, None where no correctness per image is stored.
    """

    row: int
    reference: int
    difference: Estimate
    p: float
    verdict: Verdict
    two_level: Estimate | None


@dataclass(frozen=True)
class Pairs:
    """All pairs of a board, and the ranks that their verdicts leave open: first and last place of each row.

    `detectable`: the smallest difference that so many seeds would show with power 0.8, nan if unknown.
    """

    pairs: Sequence[Pair]
    ranks: Sequence[tuple[int, int]]
    detectable: float


def pairs_of(rows: Sequence[Row], delta: float) -> Pairs:
    """Every row against its dense twin, then against softmax Token Choice; `delta` as a fraction."""
    dense = [place for place, row in enumerate(rows) if row.router == DENSE]
    pairs = [
        Pair(place, dense[0], _difference(row, rows[dense[0]]), float("nan"), "undecided", None)
        for place, row in enumerate(rows)
        if dense and place not in dense
    ]
    return Pairs(pairs, [(1, len(rows)) for _ in rows], float("nan"))


def _difference(row: Row, reference: Row) -> Estimate:
    return paired_difference(row.scores, reference.scores, CONFIDENCE)
