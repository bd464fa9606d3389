"""The images that won most and least compute, their patches shaded by what these won."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from routerbench.evaluations.compute.gallery import Looked
from routerbench.figures.marks import COLOURS
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, PAPER, WIDTH_INCHES, drawing, short

DESCRIPTION = (
    "The test images whose tokens won most slots (above) and fewest (below), with the slots of each in all "
    "MoE layers, its class and, where the model was wrong, what it took the image for. A patch is the pinker "
    "the fewer slots it won, a mean over MoE layers."
)
INCHES_PER_ROW = 1.35
BAR_WIDTH = 0.1  # over that of an image
LETTERS = 14  # of a class
PINK = to_rgb(COLOURS[3])  # seldom a colour of images
VEIL = LinearSegmentedColormap.from_list("veil", [(*PINK, 0.85), (*PINK, 0.0)])


def gallery_picture(most: Sequence[Looked], least: Sequence[Looked], class_names: Sequence[str]) -> Picture:
    """Both rows, shaded on one scale."""
    columns = max(len(most), len(least), 1)
    largest = max((float(one.by_token.max()) for one in (*most, *least)), default=1.0)
    scale = Normalize(0, largest or 1.0)
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 2 * INCHES_PER_ROW + 0.4))
        parts = figure.add_gridspec(2, columns + 1, width_ratios=[*[1] * columns, BAR_WIDTH])
        grid = [[figure.add_subplot(parts[row, column]) for column in range(columns)] for row in range(2)]
        for axes in (*grid[0], *grid[1]):
            axes.set_axis_off()
        for row, looked in zip(grid, (most, least), strict=True):
            for axes, one in zip(row, looked, strict=False):
                _draw(axes, one, class_names, scale)
        for axes, text in zip((grid[0][0], grid[1][0]), ("most slots", "fewest slots"), strict=True):
            style: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center", "color": INK, "size": 9}
            axes.text(-0.06, 0.5, text, transform=axes.transAxes, **style)
        bar = figure.colorbar(ScalarMappable(scale, VEIL), cax=figure.add_subplot(parts[:, -1]))
        bar.ax.set_facecolor(PAPER)
        bar.set_label("slots per patch, mean over layers")
    return Picture("Images by compute", DESCRIPTION, figure)


def _draw(axes: Axes, one: Looked, class_names: Sequence[str], scale: Normalize) -> None:
    height, width = one.image.shape[:2]
    where: dict[str, Any] = {"extent": (0, width, height, 0), "interpolation": "nearest"}
    axes.imshow(one.image, **where)
    axes.imshow(np.asarray(one.by_token), cmap=VEIL, norm=scale, **where)
    label, taken_for = (short(class_names[number], LETTERS) for number in (one.label, one.predicted))
    wrong = "" if one.label == one.predicted else f"\nnot {taken_for}"
    axes.set_title(f"{one.slots:g} slots\n{label}{wrong}", size=6.5, loc="center")
