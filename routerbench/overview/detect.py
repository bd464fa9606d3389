"""How many seeds a sweep needs to tell a difference, by the spread of those of its runs that are done."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from routerbench.config import is_dense
from routerbench.overview.plan import Row
from routerbench.stats import Spread, paired_spread, seeds_needed
from routerbench.stats.contrasts import NO_SPREAD

ALPHA = 0.05
POWER = 0.8
CONFIDENCE = 0.8  # of the upper limit, for what a pilot under-estimates is missed (Browne 1995)


@dataclass(frozen=True)
class Needed:
    """Seeds with which one pair of so many is told apart; None where no number of them is enough."""

    num_pairs: int
    seeds: int | None
    upper: int | None
    """By the upper limit of the spread."""


@dataclass(frozen=True)
class Comparison:
    """The configurations of one backbone, data and number of epochs."""

    title: str
    num_rows: int
    spread: Spread | None
    """Of top-1 as a fraction, of differences paired by seed; None without a pilot, or one that shows none."""
    of_all: Needed | None
    """Every two rows are a pair."""
    of_report: Needed | None
    """Each row is paired with dense and with one reference, as on a board."""


def comparisons(rows: Sequence[Row], points: float) -> list[Comparison]:
    """One for each backbone, data and epochs with more than one configuration; the difference in points."""
    twins: dict[str, list[Row]] = {}
    for row in rows:
        twins.setdefault(row.twin, []).append(row)
    return [_comparison(same, points / 100) for same in twins.values() if len(same) > 1]


def pilot_words(words: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The words of a sweep, for two of its seeds."""
    seeds = sorted({cell.settings["seed"] for row in rows for cell in row.cells})
    first, second = seeds[:2] if len(seeds) > 1 else (seeds[0], seeds[0] + 1)
    return [*(word for word in words if not word.startswith("seed=")), f"seed={first},{second}"]


def _comparison(rows: list[Row], difference: float) -> Comparison:
    settings = rows[0].cells[0].settings
    common = [word for word in rows[0].words if all(word in row.words for row in rows)]
    names = [settings["data"]["name"], settings["model"]["name"], *common]
    title = f"{' '.join(names)}, {settings['epochs']} epochs"
    spread = paired_spread({row.group: _scores(row) for row in rows})
    if spread is None or spread.deviation < NO_SPREAD:
        return Comparison(title, len(rows), None, None, None)
    of_all = _needed(spread, difference, math.comb(len(rows), 2))
    of_report = _needed(spread, difference, _pairs_of_report(rows))
    return Comparison(title, len(rows), spread, of_all, of_report)


def _scores(row: Row) -> dict[int, float]:
    done = [standing.entry for standing in row.standings if standing.state == "done"]
    return {entry.seed: float(entry.top1) for entry in done if entry is not None and entry.top1 is not None}


def _pairs_of_report(rows: list[Row]) -> int:
    num_dense = sum(is_dense(row.cells[0].config) for row in rows)
    num_sparse = len(rows) - num_dense
    return num_sparse * (num_dense > 0) + max(num_sparse - 1, 0)


def _needed(spread: Spread, difference: float, num_pairs: int) -> Needed:
    """By Holm's first step, which the largest of the differences has to pass."""
    seeds, upper = (
        seeds_needed(difference, deviation, ALPHA / num_pairs, POWER)
        for deviation in (spread.deviation, spread.upper(CONFIDENCE))
    )
    return Needed(num_pairs, seeds, upper)
