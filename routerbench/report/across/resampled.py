"""A block -> what each of its rows comes to over all cells, with the seeds resampled inside each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routerbench.report.across.block import Block
from routerbench.stats import (
    CONFIDENCE,
    Interval,
    average_ranks,
    drawn_seeds,
    expanded,
    freedom_of,
    freedom_of_sum,
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
    """A row over all cells; gains as fractions; None against itself or against what is not there.

    `main_cell`: the place of a cell that alone gives more than half of the mean gain, None where none does.
    """

    iqm: Interval | None
    mean: Interval | None
    over_dense: Interval | None
    over_token_choice: Interval | None
    average_rank: float
    first: int | None
    last: int | None
    kept: float | None
    main_cell: int | None


def overall(block: Block) -> list[Overall]:
    """Each row of the block, cells fixed, seeds drawn for all rows of a cell together.

    `kept` is the share of resamples in which a row has the same place, `first` and `last` are the places that
    they leave open; where no cell has two seeds, nothing is drawn, and all three are None.
    """
    rng = np.random.default_rng(RANDOM_SEED)
    num_seeds = [own.shape[1] for own in block.scores]
    freedom = freedom_of(num_seeds, block.shared)
    drawn = drawn_seeds(num_seeds, block.shared, NUM_RESAMPLES, rng)
    gains, ranks = _gains(block), average_ranks(block.means)
    twins = block.twins or [None] * len(block.names)
    means = [own[:, seeds].mean(axis=-1).T for own, seeds in zip(block.scores, drawn, strict=True)]
    resampled = places(average_ranks(np.stack(means, axis=1)))
    return [
        Overall(
            *((None, None) if row == twin else _means([gain[row] for gain in gains], drawn, block)),
            _above(row, twin, block, drawn, freedom),
            _above(row, block.token_choice, block, drawn, freedom),
            float(ranks[row]),
            *_kept(int(place), resampled[:, row], freedom),
            None if row == twin else _main_cell([gain[row] for gain in gains]),
        )
        for row, (place, twin) in enumerate(zip(places(ranks), twins, strict=True))
    ]


def _gains(block: Block) -> list[np.ndarray]:
    """In each cell (rows, seeds): the score minus the dense twin's, without it minus the mean of all rows."""
    twins = block.twins
    return [own - (own.mean(axis=0) if twins is None else own[twins]) for own in block.scores]


def _means(
    gains: Sequence[np.ndarray], drawn: Sequence[np.ndarray], block: Block
) -> tuple[Interval, Interval]:
    """Interquartile mean and mean of the pooled gains of a row."""
    pooled, num_seeds = np.concatenate(gains), [len(own) for own in gains]
    of_cells = [own[seeds] for own, seeds in zip(gains, drawn, strict=True)]
    resampled = np.concatenate(of_cells, axis=1)
    of_all = freedom_of(num_seeds, block.shared)
    of_mean = freedom_of_sum([own.sum(axis=1) for own in of_cells], num_seeds, block.shared)
    iqm, mean = float(interquartile_mean(pooled)), float(pooled.mean())
    return (
        percentile_interval(iqm, interquartile_mean(resampled), CONFIDENCE, of_all),
        percentile_interval(mean, resampled.mean(axis=1), CONFIDENCE, of_mean),
    )


def _main_cell(gains: Sequence[np.ndarray]) -> int | None:
    """Of two cells one nearly always gives more than half, which says nothing."""
    given = np.array([own.sum() for own in gains])
    total = given.sum()
    main = int(np.argmax(given * np.sign(total)))
    return main if len(gains) > 2 and abs(total) < 2 * given[main] * np.sign(total) else None


def _above(
    row: int, other: int | None, block: Block, drawn: Sequence[np.ndarray], freedom: int
) -> Interval | None:
    """The probability that the row is better than the other."""
    if other is None or other == row:
        return None
    cells = [(own[row], own[other]) for own in block.scores]
    resampled = [(one[seeds], two[seeds]) for (one, two), seeds in zip(cells, drawn, strict=True)]
    value = float(probability_of_improvement(cells))
    return percentile_interval(value, probability_of_improvement(resampled), CONFIDENCE, freedom)


def _kept(
    place: int, resampled: np.ndarray, freedom: int
) -> tuple[int, int, float] | tuple[None, None, None]:
    """First and last place of a row, and the share of resamples in which it has its own."""
    if not freedom:
        return None, None, None
    return *place_interval(resampled, expanded(CONFIDENCE, freedom)), float((resampled == place).mean())
