"""Scores in which nothing is better than anything, made from scores that were measured."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from routerbench.stats.intervals import Estimate

Floats = NDArray[np.float64]


def noise_of(scores: Floats) -> Floats:
    """(K rows, n seeds): each row minus its mean over seeds; nan in rows of one seed, which show no noise."""
    n = np.sum(~np.isnan(scores), axis=1, keepdims=True)
    return scores - np.nansum(scores, axis=1, keepdims=True) / np.where(n > 1, n, np.nan)


def relabelled(noise: Floats, times: int, generator: np.random.Generator) -> Floats:
    """(K rows, n seeds) -> (times, K, n): the labels of the rows permuted within each seed.

    Among the rows that have the seed; nan, where a row lacks it, stays in its place. Of noise and not of
    scores, lest real differences between rows are dealt with it (Anderson & ter Braak 2003).
    """
    dealt = np.broadcast_to(noise, (times, *noise.shape)).copy()
    for seed in range(noise.shape[1]):
        rows = np.flatnonzero(~np.isnan(noise[:, seed]))
        dealt[:, rows, seed] = generator.permuted(dealt[:, rows, seed], axis=1)
    return dealt


def share_interval(claims: NDArray[np.bool_], without: NDArray[np.bool_], confidence: float) -> Estimate:
    """The share of (T,) permutations with a claim, and its interval; `n` counts the permutations.

    `without`: (K, T) claims when each of the K rows' noise is left out. The interval of Clopper & Pearson
    (1934) for as many trials as have the variance of chance in permuting and of the noise at hand (Tukey's
    jackknife over rows): of one sample of noise a rule that is exact over all samples claims 1 to 10 %.
    """
    share, times = float(claims.mean()), len(claims)
    of_permuting = share * (1 - share) / times
    trials = times * of_permuting / (of_permuting + _jackknife(without)) if of_permuting else times
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(share * trials, trials * (1 - share) + 1, tail)) if share else 0.0
    high = float(special.betaincinv(share * trials + 1, trials * (1 - share), 1 - tail)) if share < 1 else 1.0
    return Estimate(share, low, high, times)


def _jackknife(without: NDArray[np.bool_]) -> float:
    """Variance of the share by the noise at hand, less what chance in permuting adds to it."""
    num_rows, times = without.shape
    shares = without.mean(axis=1)
    spread = (num_rows - 1) * float(np.var(shares))
    chance = (num_rows - 1) ** 2 / num_rows * float(np.mean(shares * (1 - shares))) / times
    return max(spread - chance, 0.0)
