"""Slots by image: how they are spread, and who gets them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.evaluations.seeing.observation import Observation
from routerbench.figures.marks import COLOURS
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, WIDTH_INCHES, drawing, short
from routerbench.stats import CONFIDENCE, t_interval

NUM_BINS, NUM_TENTHS = 24, 10
MOST_CLASSES = 12  # of more the first and the last
RIGHT: dict[str, Any] = {"color": COLOURS[0], "linestyle": "-"}
WRONG: dict[str, Any] = {"color": COLOURS[1], "linestyle": "--"}
DESCRIPTION = (
    "Slots that the tokens of a test image fill, summed over MoE layers. Above: how many images fill so "
    "many, the right ones and the wrong; and the mean, with its 95 % interval, of each tenth of the images "
    "by confidence. Below: the mean of each class, with its 95 % interval, from the class that gets most."
)


def compute_picture(seen: Observation, class_names: Sequence[str]) -> Picture:
    """A histogram, the relation to confidence, and the classes."""
    slots = seen.slots.sum(1).astype(np.float64)
    classes = [(slots[seen.labels == label], class_names[int(label)]) for label in np.unique(seen.labels)]
    means = sorted(classes, key=lambda of_class: -float(of_class[0].mean()))
    if len(means) > MOST_CLASSES:
        means = means[: MOST_CLASSES // 2] + means[-MOST_CLASSES // 2 :]
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 2.4 + 0.22 * len(means) + 0.5))
        parts = figure.add_gridspec(2, 2, height_ratios=(2.4, 0.22 * len(means) + 0.5))
        _histogram(figure.add_subplot(parts[0, 0]), slots, seen.correct)
        _by_confidence(figure.add_subplot(parts[0, 1]), slots, seen.confidence)
        _by_class(figure.add_subplot(parts[1, :]), means)
    return Picture("Compute by image", DESCRIPTION, figure)


def _histogram(axes: Axes, slots: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"]) -> None:
    low, high = math.floor(slots.min()), math.ceil(slots.max())
    step = max(1, -(-(high - low) // NUM_BINS))  # slots are whole numbers, and bins hold as many of them each
    edges = np.arange(low, high + step + 1, step) - 0.5
    for own, label, style in ((correct, "right", RIGHT), (~correct, "wrong", WRONG)):
        counts, _ = np.histogram(slots[own], edges)
        axes.stairs(counts, edges, label=f"{label}, {own.sum():,}", linewidth=1.3, **style)
    axes.set_xlabel("slots per image")
    axes.set_ylabel("images")
    axes.legend(fontsize=8, frameon=False)


def _by_confidence(axes: Axes, slots: Float[np.ndarray, "N"], confidence: Float[np.ndarray, "N"]) -> None:
    tenths = np.array_split(np.argsort(confidence, kind="stable"), min(NUM_TENTHS, len(slots)))
    means = [t_interval(slots[own].tolist(), CONFIDENCE) for own in tenths]
    places = [float(confidence[own].mean()) for own in tenths]
    halves = [(one.high - one.low) / 2 if one.n > 1 else 0.0 for one in means]
    values = [one.mean for one in means]
    axes.errorbar(places, values, yerr=halves, color=INK, marker="o", markersize=4, linewidth=1)
    axes.set_xlabel("confidence, tenths of the images")
    axes.set_ylabel("mean slots per image")
    axes.grid()


def _by_class(axes: Axes, means: Sequence[tuple[np.ndarray, str]]) -> None:
    estimates = [t_interval(slots.tolist(), CONFIDENCE) for slots, _ in means]
    halves = [(one.high - one.low) / 2 if one.n > 1 else 0.0 for one in estimates]
    rows = range(len(means))
    values = [one.mean for one in estimates]
    axes.errorbar(values, rows, xerr=halves, color=COLOURS[0], marker="o", markersize=4, linestyle="none")
    axes.set_yticks(rows, [short(name) for _, name in means], color=INK)
    axes.invert_yaxis()
    axes.set_xlabel("mean slots per image")
    axes.grid(axis="x")
