"""Maps in tones of one colour, and the key that says what a tone means."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from routerbench.figures.style import FAINT, INK, MUTED
from routerbench.figures.tint import tinted

MOST_TEXTS = 12  # more columns have no room for numbers
DARKEST = 0.6  # of a map with numbers, which stay legible on it
KEY = "#2257c5"  # next to the accent of maps, which on a dark page is another one, and theirs is not
TWICE = 2.0  # an even share is the middle tone


def draw_tones(
    axes: Axes, values: Float[np.ndarray, "rows columns"], most: float, darkest: float = 1.0
) -> None:
    """Draw values from 0, which has no tone, to `most` and above, which has the darkest."""
    shares = darkest * np.clip(np.nan_to_num(values.astype(np.float64)) / max(most, 1e-12), 0, 1)
    axes.imshow(tinted(shares), interpolation="none", aspect="auto")
    axes.spines[:].set(visible=True, color=FAINT)
    axes.tick_params(length=0)


def draw_numbers(axes: Axes, values: Float[np.ndarray, "rows columns"], most: float, digits: int) -> None:
    """Weaker tones, with the value in every cell where there is room for it; NaN is an empty cell."""
    draw_tones(axes, values, most, DARKEST)
    if max(values.shape) <= MOST_TEXTS:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                text = f"{value:.{digits}f}"
                axes.text(column, row, text, ha="center", va="center", size=6.5, color=INK, in_layout=False)


def tone_key(figure: Figure, meanings: Mapping[str, float]) -> None:
    """Say above the figure what tones mean, each given as its opacity."""
    patches = [
        Patch(facecolor=(KEY, opacity), edgecolor=MUTED, linewidth=0.5) for opacity in meanings.values()
    ]
    figure.legend(
        patches,
        list(meanings),
        loc="upper center",
        ncols=len(patches),
        fontsize=8,
        frameon=False,
        labelcolor=MUTED,
    )


def even_share_key(figure: Figure) -> None:
    """The key of a map whose values are over an even share."""
    tone_key(figure, {"none": 0.0, "even share": 0.5, "twice that or more": 1.0})
