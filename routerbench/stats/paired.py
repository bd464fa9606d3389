"""Tests of paired differences: the last axis holds the pairs, nan where one side lacks; others are batch."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]


def paired_p(differences: Floats, least_deviation: float = 0.0) -> Floats:
    """Two-sided p of the paired t-test, (..., n) -> (...); nan below two pairs.

    Differences that are all equal have p 0, or 1 where they are 0. `least_deviation`: the standard deviation
    of the differences is taken for no smaller, as what was rounded may be equal by chance.
    """
    mean, error, freedom = _moments(differences, least_deviation)
    return np.where(freedom > 0, 2 * special.stdtr(freedom, -np.abs(_ratio(mean, error))), np.nan)


def equivalence_p(differences: Floats, margin: float, least_deviation: float = 0.0) -> Floats:
    """P of a mean difference outside -margin to margin, (..., n) -> (...); nan below two pairs.

    Two one-sided paired t-tests, the larger p (Schuirmann 1987); `margin` in the unit of the differences,
    `least_deviation` as in `paired_p`.
    """
    mean, error, freedom = _moments(differences, least_deviation)
    return np.where(
        freedom > 0, special.stdtr(freedom, -_ratio(np.asarray(margin - np.abs(mean)), error)), np.nan
    )


def holm(p_values: Floats) -> Floats:
    """P values corrected for all that share the last axis, so that any false claim has chance alpha at most.

    nan stays nan and does not count (Holm 1979).
    """
    order = np.argsort(p_values, axis=-1)  # nan last
    ascending = np.take_along_axis(p_values, order, -1)
    left = np.sum(~np.isnan(p_values), axis=-1, keepdims=True) - np.arange(p_values.shape[-1])
    corrected = np.minimum(np.maximum.accumulate(ascending * left, axis=-1), 1.0)
    result = np.empty_like(corrected)
    np.put_along_axis(result, order, corrected, -1)
    return result


def smallest_detectable(deviation: float, n: int, alpha: float, power: float) -> float:
    """The mean of n paired differences that the two-sided paired t-test finds, with its sign, so often.

    In the unit of `deviation`, their standard deviation; nan below two pairs. The test's statistic has a
    noncentral t distribution (Cohen 1988, section 2.5).
    """
    if n < 2:
        return math.nan
    freedom, critical = n - 1, -float(special.stdtrit(n - 1, alpha / 2))

    def missing(ratio: float) -> float:
        return 1 - float(special.nctdtr(freedom, ratio, critical)) - power

    found = optimize.root_scalar(missing, bracket=(0.0, 10 + 4 * critical), method="brentq")
    return float(found.root) * deviation / math.sqrt(n)


def deviations(differences: Floats) -> Floats:
    """Standard deviation over the pairs, (..., n) -> (...); nan below two pairs."""
    present = ~np.isnan(differences)
    n = present.sum(axis=-1)
    mean = np.sum(differences, axis=-1, where=present) / np.maximum(n, 1)
    squares = np.sum((differences - mean[..., None]) ** 2, axis=-1, where=present)
    return np.asarray(np.sqrt(squares / np.where(n > 1, n - 1, np.nan)))


def _moments(differences: Floats, least_deviation: float) -> tuple[Floats, Floats, Floats]:
    """Mean, its standard error and its degrees of freedom, without the pairs that are missing."""
    n = np.sum(~np.isnan(differences), axis=-1)
    mean = np.asarray(np.nansum(differences, axis=-1) / np.maximum(n, 1))
    error = np.maximum(deviations(differences), least_deviation) / np.sqrt(np.maximum(n, 1))
    return mean, np.asarray(error), np.asarray(np.maximum(n - 1.0, 0.0))


def _ratio(value: Floats, error: Floats) -> Floats:
    """Value over error; without error the sign of the value times infinity, 0 for 0."""
    certain = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    return np.divide(value, error, out=certain, where=error > 0)
