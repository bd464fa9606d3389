"""How much one thing says of another: entropy and mutual information of counts, in nats, on numpy alone."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Num

Table = Num[np.ndarray, "X E"]
OfImages = Callable[[Float[np.ndarray, "X E"]], Float[np.ndarray, "N"]]
"""Sums up the entries of a table that the pairs of each image point to, each as often as it is counted."""


@dataclass(frozen=True)
class Explained:
    """The share of an entropy that something explains beyond chance, and its interval."""

    share: float
    """0 for what is as much as by chance (less is possible), 1 for all; nan with a `reason`."""
    low: float = math.nan
    high: float = math.nan
    null: float = math.nan
    """The share before the correction that chance alone explains."""
    p: float = math.nan
    """How often chance explains as much."""
    reason: str = ""
    """Why there is no number."""


def entropy(counts: Num[np.ndarray, "... E"]) -> Float[np.ndarray, "..."]:
    """Of the shares of the last axis, in nats; 0 where all counts are 0. Counts may be fractions."""
    total = counts.sum(-1, keepdims=True)
    share = counts / np.where(total > 0, total, 1)
    return np.asarray(-np.sum(share * _log(share), axis=-1))


def mutual_information(counts: Num[np.ndarray, "... X E"]) -> Float[np.ndarray, "..."]:
    """What X and E, which met so often, say of each other, in nats; without any correction."""
    alone = entropy(counts.sum(-1)) + entropy(counts.sum(-2))
    return np.asarray(alone - entropy(counts.reshape(*counts.shape[:-2], -1)))


def explained(
    counts: Table,
    nulls: Iterable[Table],
    of_images: OfImages,
    retained: float = 0.0,
    confidence: float = 0.95,
) -> Explained:
    """The share of the entropy of E that X explains: (I - B) / (H - B I / H).

    I is the mutual information of `counts`, H the entropy of E and B the bias of I, which grows with X and E.
    I0, the mean information of `nulls`, tables of the same experts with nothing but chance between the two,
    is B and what nulls retain of what X explains, the part `retained` of I - B: B = (I0 - retained I) /
    (1 - retained). All of H is 1, whatever B is.

    The interval is of images drawn anew, each whole, as its tokens are not independent: the infinitesimal
    jackknife. To resample images, as the bootstrap does, would itself add information. Where nothing is
    specialised the jackknife has twice the variance of the nulls, of which one is taken away.
    """
    if entropy(counts.sum(0)) < 1e-12:
        return Explained(math.nan, reason="one expert has all tokens" if counts.any() else "no token")
    if np.count_nonzero(counts.sum(1)) < 2:
        return Explained(math.nan, reason="there is nothing to tell apart")
    drawn = np.array([mutual_information(table) for table in nulls])
    information, whole = mutual_information(counts), entropy(counts.sum(0))
    bias = float(drawn.mean() - retained * information) / (1 - retained)
    room = float(whole - bias * information / whole)
    if room < 1e-9:
        return Explained(math.nan, reason="chance explains all: there are too few images")
    share = float(information - bias) / room
    of_chance = float(drawn.var())
    of_resampling = float(np.sum(_influence(counts, of_images, share) ** 2))
    error = math.sqrt(max(of_resampling - of_chance, of_chance)) / (room * (1 - retained))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    as_much = np.count_nonzero(drawn >= information - 1e-12)
    p = (1 + int(as_much)) / (1 + len(drawn))
    return Explained(share, share - half, min(share + half, 1.0), float(drawn.mean() / whole), p)


def _influence(counts: Table, of_images: OfImages, share: float) -> Float[np.ndarray, "N"]:
    """What each image adds to I - share * H, of which the error of the share is made, to first order."""
    joint = counts / counts.sum()
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    surprise = _log(joint) - _log(rows) - _log(columns) + share * _log(columns)
    of_pairs = np.where(joint > 0, surprise, 0.0)
    centred = of_pairs - float(np.sum(joint * of_pairs))
    return of_images(centred) / counts.sum()


def _log(share: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.log(np.where(share > 0, share, 1.0))
