"""Differences between the rows of a board, paired by seed, and what may be said of them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from routerbench.report.boards.correctness import Correctness, correctness_of, two_level
from routerbench.report.boards.family import family_of
from routerbench.report.boards.rows import Row
from routerbench.report.boards.rule import (
    ALPHA,
    Family,
    Ruling,
    differences_of,
    least_deviation,
    least_step,
    rule,
)
from routerbench.report.runs.metric import TOP1, Metric
from routerbench.stats import (
    CONFIDENCE,
    Estimate,
    deviations,
    open_places,
    paired_difference,
    smallest_detectable,
)

Verdict = Literal["better", "worse", "equivalent", "undecided"]

POWER = 0.8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A row against a reference row, both by their place on the board; differences in [-1, 1].

    `p`: two-sided, of the paired t-test, corrected for all pairs of the board, nan below two common seeds.
    `two_level`: the interval over seeds and images, None where no correctness per image is stored.
    """

    row: int
    reference: int
    difference: Estimate
    p: float
    verdict: Verdict
    two_level: Estimate | None

    @property
    def tested(self) -> bool:
        return not math.isnan(self.p)


@dataclass(frozen=True)
class Pairs:
    """All pairs of a board, and the ranks that their verdicts leave open: first and last place of each row.

    `detectable`: the smallest difference that so many seeds would show with power 0.8, nan if unknown.
    `delta`: the difference within which rows are equivalent. `resolution`: what one test image adds to a
    score or, where no run tells, the least by which two scores of the board differ. `unreadable`: the runs
    whose correctness per image cannot be read.
    """

    pairs: Sequence[Pair]
    ranks: Sequence[tuple[int, int]]
    detectable: float
    delta: float
    resolution: float
    unreadable: Sequence[str]

    @property
    def num_tested(self) -> int:
        return sum(pair.tested for pair in self.pairs)

    @property
    def usual_n(self) -> int:
        """The number of seeds that most pairs have, of the tested ones if there are any."""
        counts = [pair.difference.n for pair in self.pairs if pair.tested or not self.num_tested]
        return min(statistics.multimode(counts), default=0)


def pairs_of(rows: Sequence[Row], metric: Metric, delta: float) -> Pairs:
    """Every row against its dense twin, then against softmax Token Choice; `delta` as a fraction."""
    family = family_of(rows)
    correctness = correctness_of(rows) if metric.name == TOP1 else Correctness({}, ())
    scores = score_matrix(rows)
    differences, resolution = differences_of(scores, family), correctness.resolution or least_step(scores)
    ruling = rule(differences, delta, resolution)
    pairs = [
        Pair(
            row,
            reference,
            paired_difference(rows[row].scores, rows[reference].scores, CONFIDENCE),
            float(ruling.p[number]),
            _verdict(ruling, number),
            two_level(row, reference, rows, correctness),
        )
        for number, (row, reference) in enumerate(family)
    ]
    ranks = _ranks(rows, family, ruling)
    found = Pairs(pairs, ranks, math.nan, delta, resolution, correctness.unreadable)
    return replace(found, detectable=_detectable(found, differences)) if found.num_tested else found


def score_matrix(rows: Sequence[Row]) -> Floats:
    """(rows, seeds) scores, nan where a row lacks a seed."""
    seeds = sorted({seed for row in rows for seed in row.scores})
    scores = [[row.scores.get(seed, math.nan) for seed in seeds] for row in rows]
    return np.array(scores, dtype=float).reshape(len(rows), len(seeds))


def _verdict(ruling: Ruling, number: int) -> Verdict:
    if ruling.sign[number]:
        return "better" if ruling.sign[number] > 0 else "worse"
    return "equivalent" if ruling.p_equivalence[number] < ALPHA else "undecided"


def _ranks(rows: Sequence[Row], family: Family, ruling: Ruling) -> list[tuple[int, int]]:
    """The open places among the rows with scores; all of them for a row without."""
    better = np.zeros((len(rows), len(rows)), dtype=bool)
    for (row, reference), sign in zip(family, ruling.sign, strict=True):
        before, after = (row, reference) if sign > 0 else (reference, row)
        better[before, after] |= bool(sign)
    scored = [place for place, row in enumerate(rows) if row.scores]
    places = dict(zip(scored, open_places(better[np.ix_(scored, scored)]), strict=True))
    return [places.get(place, (1, len(rows))) for place in range(len(rows))]


def _detectable(pairs: Pairs, differences: Floats) -> float:
    """By the pairs' typical deviation, at the level of the smallest p of the family (Holm's first step)."""
    known = deviations(differences)[[pair.tested for pair in pairs.pairs]]
    deviation = max(float(np.sqrt(np.mean(known**2))), least_deviation(pairs.resolution))
    return smallest_detectable(deviation, pairs.usual_n, ALPHA / pairs.num_tested, POWER)
