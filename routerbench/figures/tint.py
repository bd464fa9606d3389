"""Shares as tones of one colour."""

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from routerbench.figures.style import ACCENT


def tinted(shares: NDArray[np.floating]) -> NDArray[np.floating]:
    """Shares in [0, 1] as colours (..., 4) whose opacity is the share, so that they fit a dark page too."""
    colours = np.broadcast_to(to_rgb(ACCENT), (*shares.shape, 3))
    return np.concatenate([colours, np.nan_to_num(shares)[..., None]], -1)
