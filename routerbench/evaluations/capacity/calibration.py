"""Calibration: whether a model is right as often as it says."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64

from routerbench.metrics import Metrics

NUM_BINS = 15


@dataclass(frozen=True)
class Bins:
    """Images by confidence, from the least; the means of an empty bin are nan."""

    count: Int64[np.ndarray, "bins"]
    confidence: Float[np.ndarray, "bins"]
    """Mean of the images in it."""
    accuracy: Float[np.ndarray, "bins"]

    @property
    def error(self) -> float:
        """The expected calibration error: |accuracy - confidence|, averaged over images."""
        gap = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gap * self.count) / max(self.count.sum(), 1))


def equal_width(
    confidence: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], num_bins: int = NUM_BINS
) -> Bins:
    """Bins (0, 1/n], (1/n, 2/n], ... of confidence (Naeini et al. 2015; Guo et al. 2017)."""
    place = np.ceil(confidence.astype(np.float64) * num_bins).astype(np.int64) - 1
    return _bins(confidence, correct, place.clip(0, num_bins - 1), num_bins)


def equal_mass(
    confidence: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], num_bins: int = NUM_BINS
) -> Bins:
    """Bins of as many images each, or one more (Nixon et al. 2019)."""
    place = np.empty(len(confidence), np.int64)
    for number, images in enumerate(np.array_split(np.argsort(confidence, kind="stable"), num_bins)):
        place[images] = number
    return _bins(confidence, correct, place, num_bins)


def calibration(logits: Float32[np.ndarray, "N classes"], labels: Int64[np.ndarray, "N"]) -> Metrics:
    """The calibration error with bins of equal width and of equal mass, and the Brier score.

    Of the softmax of the logits, whatever the loss in training. The Brier score is the squared distance of
    all classes' probabilities from the truth, summed over classes: 0 to 2 (Brier 1950).
    """
    probability = torch.from_numpy(logits).double().softmax(1).numpy()
    confidence, correct = probability.max(1), logits.argmax(1) == labels
    of_truth = probability[np.arange(len(labels)), labels]
    brier = (probability**2).sum(1) - 2 * of_truth + 1
    return {
        "ece": equal_width(confidence, correct).error,
        "ece_equal_mass": equal_mass(confidence, correct).error,
        "brier": float(brier.mean()),
    }


def _bins(
    confidence: Float[np.ndarray, "N"],
    correct: Bool[np.ndarray, "N"],
    place: Int64[np.ndarray, "N"],
    num_bins: int,
) -> Bins:
    count = np.bincount(place, minlength=num_bins)
    held = np.where(count > 0, count, np.nan)
    sums = (np.bincount(place, weights=values, minlength=num_bins) for values in (confidence, correct))
    return Bins(count, *(total / held for total in sums))
