"""A block -> what each of its rows comes to over all cells, with the seeds resampled inside each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routerbench.report.block import Block
from routerbench.report.rows import CONFIDENCE
from routerbench.stats import (
    Interval,
    average_ranks,
    drawn_seeds,
    interquartile_mean,
    percentile_interval,
    place_interval,
    places,
    probability_of_improvement,
)

NUM_RESAMPLES = 1000
RANDOM_SEED = 20211  # fixed: the same records give the same intervals


@dataclass(frozen=True)
class Overall:
    """A row over all cells; gains as fractions; None against itself or against what is not there."""

    iqm: Interval | None
    mean: Interval | None
    over_dense: Interval | None
    over_token_choice: Interval | None
    average_rank: float
    first: int
    last: int
    kept: float


def overall(block: Block) -> list[Overall]:
    """Each row of the block, cells fixed, seeds drawn for all rows of a cell together.

    `kept` is the share of resamples in which a row has the same place, `first` and `last` are the places of
    the middle 95 % of them.
    """
    rng = np.random.default_rng(RANDOM_SEED)
    drawn = drawn_seeds([own.shape[1] for own in block.scores], block.shared, NUM_RESAMPLES, rng)
    gains, ranks = _gains(block), average_ranks(block.means)
    twins = block.twins or [None] * len(block.names)
    means = [own[:, seeds].mean(axis=-1).T for own, seeds in zip(block.scores, drawn, strict=True)]
    resampled = places(average_ranks(np.stack(means, axis=1)))
    return [
        Overall(
            *((None, None) if row == twin else _means([gain[row] for gain in gains], drawn)),
            _above(row, twin, block, drawn),
            _above(row, block.token_choice, block, drawn),
            float(ranks[row]),
            *place_interval(resampled[:, row], CONFIDENCE),
            float((resampled[:, row] == place).mean()),
        )
        for row, (place, twin) in enumerate(zip(places(ranks), twins, strict=True))
    ]


def _gains(block: Block) -> list[np.ndarray]:
    """In each cell (rows, seeds): the score minus the dense twin's, without it minus the mean of all rows."""
    twins = block.twins
    return [own - (own.mean(axis=0) if twins is None else own[twins]) for own in block.scores]


def _means(gains: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> tuple[Interval, Interval]:
    """Interquartile mean and mean of the pooled gains of a row."""
    pooled = np.concatenate(gains)
    resampled = np.concatenate([own[seeds] for own, seeds in zip(gains, drawn, strict=True)], axis=1)
    iqm = _interval(float(interquartile_mean(pooled)), interquartile_mean(resampled), gains)
    return iqm, _interval(float(pooled.mean()), resampled.mean(axis=1), gains)


def _above(row: int, other: int | None, block: Block, drawn: Sequence[np.ndarray]) -> Interval | None:
    """The probability that the row is better than the other."""
    if other is None or other == row:
        return None
    cells = [(own[row], own[other]) for own in block.scores]
    resampled = [(one[seeds], two[seeds]) for (one, two), seeds in zip(cells, drawn, strict=True)]
    value = float(probability_of_improvement(cells))
    return _interval(value, probability_of_improvement(resampled), [one for one, _ in cells])


def _interval(value: float, resampled: np.ndarray, cells: Sequence[np.ndarray]) -> Interval:
    """Without an interval where every cell has a single seed, which is nothing to resample."""
    alone = all(len(own) == 1 for own in cells)
    return Interval(value, np.nan, np.nan) if alone else percentile_interval(value, resampled, CONFIDENCE)
