"""Load and dropped tokens by layer, for each router of a board."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from routerbench.figures.order import in_natural_order
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, WIDTH_INCHES, drawing, short
from routerbench.figures.tint import tinted
from routerbench.report.boards.board import Board
from routerbench.report.boards.rows import Row
from routerbench.report.tables.table import NOTHING

MAX_ROWS = 20
MAX_TEXTS = 12  # more columns have no room for numbers
DARKEST = 0.6  # the numbers stay legible on it
LOAD = re.compile(r"metrics\.routing/(.+)/load_max_over_mean")

Values = NDArray[np.float64]  # rows and layers; nan where no run tells


def routing_by_layer(board: Board) -> Picture | None:
    """The fullest expert's load over the mean and the percentage dropped; None without a routed layer."""
    routed = [row for row in board.rows if _layers(row)]
    layers = sorted({layer for row in routed for layer in _layers(row)}, key=in_natural_order)
    if not layers:
        return None
    rows = routed[:MAX_ROWS]
    load = _values(rows, layers, "load_max_over_mean")
    dropped = 100 * _values(rows, layers, "dropped_fraction")
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 0.25 * len(rows) + 0.75))
        left, right = figure.subplots(1, 2, sharey=True)
        _draw(left, load, _tint(load - 1), "load, max / mean", lambda value: f"{value:.2f}")
        _draw(right, dropped, _tint(dropped), "dropped %", lambda value: f"{value:.1f}")
        left.set_yticks(range(len(rows)), [short(row.label) for row in rows], color=INK)
        for axes in (left, right):
            axes.set_xticks(range(len(layers)), _shortened(layers))
    left_out = len(routed) - len(rows)
    words = (
        "The load of the fullest expert over the mean of all (1.00 is even), and the tokens that no slot "
        "holds, by MoE layer, mean over the seeds that finished; a stronger tone is more."
    )
    words += f" The last {left_out} rows are not drawn." if left_out else ""
    return Picture("Load and drop by layer", words, figure)


def _layers(row: Row) -> list[str]:
    return [match[1] for run in row.runs for path in run if (match := LOAD.fullmatch(path))]


def _values(rows: Sequence[Row], layers: Sequence[str], name: str) -> Values:
    return np.array([[_mean(row, f"metrics.routing/{layer}/{name}") for layer in layers] for row in rows])


def _mean(row: Row, path: str) -> float:
    told = [float(run[path]) for run in row.runs if run["status"] == "done" and path in run]
    values = [value for value in told if math.isfinite(value)]
    return math.fsum(values) / len(values) if values else math.nan


def _tint(values: Values) -> Values:
    most = np.nanmax(np.maximum(values, 0), initial=0.0)
    return DARKEST * np.maximum(values, 0) / most if most > 0 else np.zeros_like(values)


def _draw(axes: Axes, values: Values, shares: Values, title: str, text: Callable[[float], str]) -> None:
    axes.imshow(tinted(shares), interpolation="none", aspect="auto")
    axes.set_title(title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if values.shape[1] <= MAX_TEXTS:
        for (row, layer), value in np.ndenumerate(values):
            shown = NOTHING if math.isnan(value) else text(value)
            axes.text(layer, row, shown, ha="center", va="center", size=8, color=INK, in_layout=False)


def _shortened(layers: Sequence[str]) -> list[str]:
    """The names of the layers without what all begin with, where that leaves a number."""
    numbers = [layer.removeprefix("blocks.") for layer in layers]
    names = [f"block {number}" if number.isdecimal() else number for number in numbers]
    few = (
        names if len(names) <= 4 else [number if number.isdecimal() else short(number) for number in numbers]
    )
    return [short(name) for name in few]
