"""Two shares of the same images: their difference, and how far another draw of images could move it."""

import numpy as np
from jaxtyping import Bool
from scipy.special import ndtri

from routerbench.stats.intervals import Estimate


def matched_difference(a: Bool[np.ndarray, "N"], b: Bool[np.ndarray, "N"], confidence: float) -> Estimate:
    """The share of a less that of b, both told of the same N things, with its interval.

    Wald's interval with half a thing added to each of the four cells (Agresti & Min 2005), which holds its
    confidence also where few things differ: where none does it is not empty.
    """
    assert 0 < confidence < 1, confidence
    n, gained, lost = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    more, less = (gained + 0.5) / (n + 2), (lost + 0.5) / (n + 2)
    half = float(ndtri((1 + confidence) / 2)) * np.sqrt((more + less - (more - less) ** 2) / (n + 2))
    centre = more - less
    return Estimate((gained - lost) / max(n, 1), float(centre - half), float(centre + half), n)
