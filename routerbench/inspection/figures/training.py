"""How the routing of each layer changed while the run was trained."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from routerbench.figures.margins import legend_room
from routerbench.figures.marks import SHAPES
from routerbench.figures.order import in_natural_order
from routerbench.figures.panels import panels
from routerbench.figures.picture import Picture
from routerbench.figures.style import MUTED, drawing, short
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.looks import line_of
from routerbench.inspection.figures.rows import read_rows

METRICS = {
    "load_cv": "load: sd / mean",
    "entropy": "entropy of gates",
    "margin": "gate 1 - gate 2",
    "confidence": "largest gate",
    "dropped_fraction": "dropped tokens %",
    "class_information": "explained by class",
    "position_information": "explained by position",
}
PERCENT = ("dropped_fraction",)
FROM_ZERO = ("load_cv", "dropped_fraction")
NAME = re.compile(r"(train/)?routing/(.+)/([^/]+)")
WORDS = (
    "The routing of each layer against the steps of training: lines are the training batches, marks the test "
    "images after an epoch. Entropy is over that of an even choice; a margin near 0 means that the first two "
    "experts are chosen about equally. In evaluation the capacity may be another than in training."
)

Points = list[tuple[int, float]]
Series = Mapping[tuple[str, str, bool], Points]
"""By layer, metric and whether it is of training: steps and values."""


def over_training(folder: Path, only: Sequence[str] = ()) -> Drawn | None:
    """A panel for each metric, a line a layer; None where the run's rows tell of no layer."""
    series = _series(folder, only)
    metrics = [metric for metric in METRICS if any(key[1] == metric for key in series)]
    layers = sorted({key[0] for key in series}, key=in_natural_order)
    if not metrics:
        return None
    with drawing():
        figure, grid = panels(len(metrics), 1.7, "step", "", share=False)
        for axes, metric in zip(grid, metrics, strict=True):
            _draw(axes, metric, layers, series)
        handles, names = grid[0].get_legend_handles_labels()
        columns, _ = legend_room(names)
        figure.legend(
            handles, names, loc="upper center", ncols=columns, fontsize=8, frameon=False, labelcolor=MUTED
        )
    rows: list[Row] = [
        (layer, metric, "training" if in_training else "test", step, value)
        for (layer, metric, in_training), points in series.items()
        for step, value in points
    ]
    columns = ("layer", "metric", "images", "step", "value")
    return Drawn("over_training", Picture("Routing over training", WORDS, figure), columns, rows)


def _draw(axes: Axes, metric: str, layers: Sequence[str], series: Series) -> None:
    scale = 100 if metric in PERCENT else 1
    for number, layer in enumerate(layers):
        look = line_of(number)
        steps, values = _columns(series.get((layer, metric, True), []))
        axes.plot(steps, [scale * value for value in values], linewidth=1, **look)
        steps, values = _columns(series.get((layer, metric, False), []))
        mark = {
            "marker": SHAPES[number % len(SHAPES)],
            "color": look["color"],
            "linestyle": look["linestyle"],
        }
        axes.plot(
            steps,
            [scale * value for value in values],
            markersize=4,
            linewidth=0.6,
            label=short(layer, 24),
            **mark,
        )
    axes.set_title(METRICS[metric], size=8)
    if metric in FROM_ZERO:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _series(folder: Path, only: Sequence[str]) -> Series:
    series: dict[tuple[str, str, bool], Points] = {}
    for row in read_rows(folder):
        for name, value in row.numbers.items():
            match = NAME.fullmatch(name)
            if match and match[3] in METRICS and (not only or match[2] in only):
                series.setdefault((match[2], match[3], match[1] is not None), []).append((row.step, value))
    return series
