"""How the slots that images win hang together with what becomes of these images."""

import math

import numpy as np
from jaxtyping import Float, Int64
from scipy import stats

from routerbench.evaluations.measurement import Result
from routerbench.evaluations.seeing.observation import Observation
from routerbench.stats import CONFIDENCE

QUANTILES = (5, 50, 95)


def relations(seen: Observation, flops: Float[np.ndarray, "N"]) -> Result:
    """Means, quantiles and relations; what cannot be told, as of slots that are all equal, is nan.

    Intervals take the images for independent draws.
    """
    slots, right = seen.slots.sum(1), seen.correct
    difference = mean_difference(slots[right], slots[~right])
    correlation = rank_correlation(slots, seen.confidence)
    return {
        "top1": float(right.mean()),
        "slots_per_image": float(slots.mean()),
        "slots_right_minus_wrong": difference[0],
        "spearman_confidence": correlation[0],
        "slots_right": _mean(slots[right]),
        "slots_wrong": _mean(slots[~right]),
        "slots_right_minus_wrong_low": difference[1],
        "slots_right_minus_wrong_high": difference[2],
        "spearman_confidence_low": correlation[1],
        "spearman_confidence_high": correlation[2],
        "between_classes_share": between_classes_share(slots, seen.labels),
        "slots_std": float(slots.std()),
        **{f"slots_p{part}": float(np.percentile(slots, part)) for part in QUANTILES},
        "executed_flops_per_image": float(flops.mean()),
        **{f"executed_flops_p{part}": float(np.percentile(flops, part)) for part in QUANTILES},
        "dropped_fraction": float(seen.dropped.mean()),
        "images": len(slots),
    }


def mean_difference(a: Float[np.ndarray, "N"], b: Float[np.ndarray, "M"]) -> tuple[float, float, float]:
    """The mean of a less that of b, with the ends of Welch's interval; nan below two of either."""
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan, math.nan
    difference = float(a.mean(dtype=np.float64) - b.mean(dtype=np.float64))
    if not np.ptp(a) and not np.ptp(b):
        return difference, difference, difference
    ends = stats.ttest_ind(a.astype(np.float64), b.astype(np.float64), equal_var=False).confidence_interval(
        CONFIDENCE
    )
    return difference, float(ends.low), float(ends.high)


def rank_correlation(a: Float[np.ndarray, "N"], b: Float[np.ndarray, "N"]) -> tuple[float, float, float]:
    """Spearman's correlation, with the ends of Bonett and Wright's interval (2000); nan for equal values."""
    if len(a) < 4 or not np.ptp(a) or not np.ptp(b):
        return math.nan, math.nan, math.nan
    rho = float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])
    within = min(max(rho, -1 + 1e-12), 1 - 1e-12)
    half = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * math.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    return rho, math.tanh(math.atanh(within) - half), math.tanh(math.atanh(within) + half)


def between_classes_share(slots: Float[np.ndarray, "N"], labels: Int64[np.ndarray, "N"]) -> float:
    """Share of the variance of slots that lies between the means of classes (eta squared)."""
    slots = slots.astype(np.float64)
    total = ((slots - slots.mean()) ** 2).sum()
    classes = [slots[labels == label] for label in np.unique(labels)]
    between = sum(len(own) * (own.mean() - slots.mean()) ** 2 for own in classes)
    return float(between / total) if np.ptp(slots) else math.nan


def _mean(values: Float[np.ndarray, "N"]) -> float:
    return float(values.mean()) if len(values) else math.nan


def extremes(
    slots: Float[np.ndarray, "N"], number: int
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """The places of the images that won most and of those that won least, of equal ones the first."""
    number = min(number, len(slots) // 2)
    order = np.argsort(-slots, kind="stable")
    return order[:number], np.argsort(slots, kind="stable")[:number]
