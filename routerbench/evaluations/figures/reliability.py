"""Reliability diagrams: how often a model is right when it is so sure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from routerbench.evaluations.capacity.calibration import Bins
from routerbench.figures.marks import COLOURS
from routerbench.figures.panels import panel_title, panels
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, MUTED, drawing

DESCRIPTION = (
    "Accuracy of the test images in {bins} equal bins of confidence, the softmax of the largest logit. A "
    "model whose bars end on the dashed line is right as often as it says; below it is too sure. The orange "
    "steps are the images in each bin, a fifth of the height for the fullest. ECE: the distance from the "
    "dashed line, averaged over images."
)
LEGEND: dict[str, Any] = {"fontsize": 8, "frameon": False}


def reliability_picture(bins_of: Mapping[str, Bins]) -> Picture:
    """A panel for each mode."""
    with drawing():
        figure, grid = panels(len(bins_of), 2.2, "confidence", "accuracy", share=True)
        for axes, (mode, bins) in zip(grid, bins_of.items(), strict=True):
            _draw(axes, bins)
            axes.set_title(f"{panel_title(mode)}\nECE {bins.error:.3f}", size=8)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="upper left", ncols=3, **LEGEND)
    number = len(next(iter(bins_of.values())).count)
    return Picture("Reliability", DESCRIPTION.format(bins=number), figure)


def _draw(axes: Axes, bins: Bins) -> None:
    number = len(bins.count)
    left = np.arange(number) / number
    style: dict[str, Any] = {"width": 1 / number, "align": "edge", "color": COLOURS[0], "edgecolor": "white"}
    axes.bar(left, np.nan_to_num(bins.accuracy), linewidth=0.5, label="accuracy", **style)
    axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=0.9, label="as often as it says")
    shares = bins.count / max(bins.count.max(), 1)
    edges = np.append(left, 1.0)
    axes.stairs(0.2 * shares, edges, color=COLOURS[1], linewidth=1.2, label="images, fullest bin at 0.2")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.tick_params(colors=MUTED)
