"""Small against large: whether the routers stand in the same order at two scales of a model."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from routerbench.report.across.families import Family
from routerbench.report.across.resampled import NUM_RESAMPLES, RANDOM_SEED
from routerbench.report.boards.cells import DENSE
from routerbench.report.boards.rows import Row
from routerbench.report.tables.table import Cell, Column, Line, Table, interval_cell
from routerbench.stats import (
    CONFIDENCE,
    Interval,
    drawn_seeds,
    freedom_of,
    percentile_interval,
    rank_correlation,
)

CAPTION = (
    "Kendall's tau-b between the mean scores of the routers (all rows but dense) at two scales of a model, "
    "all else equal: 1 is the same order, -1 the reverse. In brackets the 95 % interval, resampling the "
    "seeds of all routers of a scale together; with few seeds it is rough, and noise draws tau towards 0."
)
MOST_SCALES = 6  # of which all pairs are shown
COLUMNS = (
    Column("scale", "\nscale"),
    Column("against", "\nagainst"),
    Column("routers", "rou-\nters"),
    Column("seeds", "\nseeds"),
    Column("rank correlation", "rank corre-\nlation"),
)


def scale_rank_table(family: Family) -> Table | None:
    """A line for every two scales that have two routers in common at least; None where there are none.

    Of more than six scales those beside each other in cost, and the cheapest with the dearest.
    """
    lines = [_line(family, cheap, dear) for cheap, dear in _two_each(_by_cost(family))]
    known = [line for line in lines if line]
    return Table(f"Small against large · {family.title}", CAPTION, COLUMNS, known) if known else None


def _two_each(scales: Sequence[str]) -> Sequence[tuple[str, str]]:
    if len(scales) <= MOST_SCALES:
        return list(combinations(scales, 2))
    return [*pairwise(scales), (scales[0], scales[-1])]


def _by_cost(family: Family) -> list[str]:
    """The scales from the cheapest, by the mean FLOPs of their rows."""

    def cost(scale: str) -> tuple[float, str]:
        rows = [one.rows[scale] for one in family.configurations if scale in one.rows]
        known = [row.cost.flops_per_image for row in rows if row.cost.flops_per_image > 0]
        return (math.fsum(known) / len(known) if known else math.inf), scale

    return sorted(family.scales, key=cost)


def _line(family: Family, cheap: str, dear: str) -> Line | None:
    routers = [
        one for one in family.configurations if {cheap, dear} <= one.rows.keys() and one.router != DENSE
    ]
    scores = [_scores([one.rows[scale] for one in routers]) for scale in (cheap, dear)]
    if len(routers) < 2 or not all(own.shape[1] for own in scores):
        return None
    tau, seeds = _correlation(*scores), [own.shape[1] for own in scores]
    counted = Cell(" and ".join(map(str, seeds)), min(seeds))
    number = Cell(str(len(routers)), len(routers))
    return Line([Cell(cheap), Cell(dear), number, counted, interval_cell(tau, 1.0, 2)])


def _scores(rows: Sequence[Row]) -> np.ndarray:
    """(rows, seeds) over the seeds that all these rows have."""
    scores: Sequence[Mapping[int, float]] = [row.scores for row in rows]
    seeds = sorted(set.intersection(*map(set, scores))) if scores else []
    return np.array([[own[seed] for seed in seeds] for own in scores]).reshape(len(rows), len(seeds))


def _correlation(cheap: np.ndarray, dear: np.ndarray) -> Interval:
    value = float(rank_correlation(cheap.mean(axis=1), dear.mean(axis=1)))
    seeds = [cheap.shape[1], dear.shape[1]]
    rng = np.random.default_rng(RANDOM_SEED)
    scales = ("cheap", "dear")
    drawn = drawn_seeds(seeds, scales, NUM_RESAMPLES, rng)
    means = [own[:, places].mean(axis=-1).T for own, places in zip((cheap, dear), drawn, strict=True)]
    return percentile_interval(value, rank_correlation(*means), CONFIDENCE, freedom_of(seeds, scales))
