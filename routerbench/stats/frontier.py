"""Who stands on the Pareto frontier of cost and score, and how surely."""

import numpy as np
from jaxtyping import Bool, Float, Num

from routerbench.stats.bootstrap import drawn_seeds


def on_frontier(
    costs: Num[np.ndarray, "points"], scores: Float[np.ndarray, "*batch points"]
) -> Bool[np.ndarray, "*batch points"]:
    """Whether no other point costs no more and scores no less, one of the two strictly; nan never does."""
    order = np.argsort(costs, kind="stable")
    known = np.where(np.isnan(scores), -np.inf, scores)
    lowest = np.full((*scores.shape[:-1], 1), -np.inf)
    best = np.concatenate([lowest, np.maximum.accumulate(known[..., order], axis=-1)], axis=-1)
    cheaper = best[..., np.searchsorted(costs[order], costs, side="left")]
    no_dearer = best[..., np.searchsorted(costs[order], costs, side="right")]
    return (known > cheaper) & (known >= no_dearer)


def frontier_shares(
    costs: Num[np.ndarray, "points"],
    scores: Float[np.ndarray, "points seeds"],
    num_resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "points"]:
    """For each point the share of resamples of the seeds in which its mean stands on the frontier.

    A score is nan where a seed has no run. The seeds are drawn for all points together, as they share them; a
    point counts in the resamples that hold a seed of its own. Nan below two seeds: nothing to resample.
    """
    num_seeds = scores.shape[1]
    if num_seeds < 2:
        return np.full(len(costs), np.nan)
    (drawn,) = drawn_seeds([num_seeds], [0], num_resamples, rng)
    chosen = scores[:, drawn]
    number = (~np.isnan(chosen)).sum(axis=-1)
    total = np.where(np.isnan(chosen), 0, chosen).sum(axis=-1)
    means = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0).T
    return on_frontier(costs, means).sum(axis=0) / np.maximum((number > 0).sum(axis=1), 1)
