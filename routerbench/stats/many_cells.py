"""Ranks over many cells: Friedman, Nemenyi's critical difference, rank intervals, rank correlation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num


def average_ranks(scores: Num[np.ndarray, "*batch cells rows"]) -> Float[np.ndarray, "*batch rows"]:
    """Ranks in each cell, 1 the best, ties their mean, averaged over the cells."""
    from scipy import stats  # half a second, for which the report of one board need not wait

    return stats.rankdata(-scores, axis=-1).mean(axis=-2)


def friedman_p(scores: Num[np.ndarray, "cells rows"]) -> float:
    """P-value of Friedman's test that all rows rank alike; nan below three rows and where all are tied."""
    if scores.shape[1] < 3 or (scores == scores[:, :1]).all():
        return float("nan")
    from scipy import stats

    return float(stats.friedmanchisquare(*scores.T).pvalue)


def critical_difference(num_rows: int, num_cells: int, alpha: float) -> float:
    """Nemenyi's least difference of two average ranks that counts at the level alpha (Demsar 2006, 3.2.2)."""
    assert num_rows >= 2, num_rows
    from scipy import stats

    quantile = stats.studentized_range.ppf(1 - alpha, num_rows, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(num_rows * (num_rows + 1) / (6 * num_cells)))


def groups_within(ranks: Sequence[float], difference: float) -> list[tuple[float, float]]:
    """The longest stretches of average ranks, two at least, whose ends lie less than the difference apart."""
    order = sorted(ranks)
    ends = [max(end for end in order if end - start < difference) for start in order]
    stretches = [
        (start, end) for start, end in zip(order, ends, strict=True) if order.count(start) > 1 or end > start
    ]
    return sorted({one for one in stretches if not any(_inside(one, other) for other in stretches)})


def _inside(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and other[0] <= one[0] and one[1] <= other[1]


def places(ranks: Num[np.ndarray, "*batch rows"]) -> Int[np.ndarray, "*batch rows"]:
    """Places by average rank: 1 and the number of rows with a smaller one."""
    from scipy import stats

    return stats.rankdata(ranks, method="min", axis=-1).astype(int)


def place_interval(resampled: Int[np.ndarray, "resamples"], confidence: float) -> tuple[int, int]:
    """First and last of the places that hold at least this share of the resamples."""
    tail = (1 - confidence) / 2
    return (
        int(np.quantile(resampled, tail, method="inverted_cdf")),
        int(np.quantile(resampled, 1 - tail, method="inverted_cdf")),
    )


def rank_correlation(
    one: Num[np.ndarray, "*batch rows"], other: Num[np.ndarray, "*batch rows"]
) -> Float[np.ndarray, "*batch"]:
    """Kendall's tau-b of two orders of the same rows, nan where all of one are tied.

    The pairs of rows in the same order minus those in the other, over those that are not tied (Kendall 1945):
    of few rows it is easier to read than Spearman's, and one exchange of neighbours always weighs the same.
    """
    first, second = np.triu_indices(one.shape[-1], 1)
    ones = np.sign(one[..., first] - one[..., second])
    others = np.sign(other[..., first] - other[..., second])
    untied = np.sqrt((ones != 0).sum(axis=-1) * (others != 0).sum(axis=-1))
    return np.divide(
        (ones * others).sum(axis=-1), untied, out=np.full(untied.shape, np.nan), where=untied > 0
    )
