"""Intervals over training seeds, the unit of replication."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95  # of the intervals that are shown


@dataclass(frozen=True)
class Estimate:
    """A mean over n values and its interval; low and high are nan below two values, all three without any."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], confidence: float) -> Estimate:
    """Mean and two-sided Student t interval (n - 1 degrees of freedom), in the unit of the values."""
    assert 0 < confidence < 1, confidence
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    # Not the percentile bootstrap: of its nominal 95 % intervals over three seeds 74 % hold the mean.
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def proportion_interval(count: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share, of which `count` of n >= 1 are seen (Wilson 1927)."""
    assert 0 <= count <= n, (count, n)
    z, share = float(ndtri((1 + confidence) / 2)), count / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], confidence: float) -> Estimate:
    """Mean and t interval of a - b, both keyed by seed, over the seeds that both have."""
    return t_interval([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())], confidence)
