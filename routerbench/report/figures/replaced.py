"""What is lost at test time without the routers that were trained: a point for each row and replacement."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from routerbench.figures.margins import legend_room
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, MUTED, WIDTH_INCHES, drawing, short
from routerbench.report.boards.at_test_time import LOST, ROUTERS, replacements_of
from routerbench.report.boards.board import Board
from routerbench.report.boards.evaluated import estimate_at, values_at
from routerbench.report.boards.rows import Row
from routerbench.report.figures.marks import Mark, marks_of

MAX_ROWS, MAX_REPLACEMENTS = 8, 12
INCHES_PER_POINT, INCHES_BETWEEN, LETTERS = 0.12, 0.16, 26
WORDS = (
    "Points of top-1 lost where the routers of all MoE layers are replaced after training; mean over seeds "
    "with its 95 % t-interval, small dots are single seeds. What is near 0 did not need the trained router."
)


def lost_without_routers(board: Board) -> Picture | None:
    """The rows whose routers were replaced; None without any."""
    told = [row for row in board.rows if replacements_of(row)]
    if not told:
        return None
    rows, names = told[:MAX_ROWS], list(dict.fromkeys(name for row in told for name in replacements_of(row)))
    left_out = {"rows": len(told) - len(rows), "replacements": len(names) - MAX_REPLACEMENTS}
    more = "".join(
        f" The last {count} {what} are not drawn." for what, count in left_out.items() if count > 0
    )
    with drawing():
        figure = _figure(rows, names[:MAX_REPLACEMENTS])
    return Picture("Does the router matter?", WORDS + more, figure)


def _figure(rows: Sequence[Row], names: Sequence[str]) -> Figure:
    marks = marks_of({row.label: row.router for row in rows})
    columns, of_legend = legend_room([short(label, LETTERS) for label in marks])
    height = len(names) * (INCHES_PER_POINT * len(rows) + INCHES_BETWEEN) + of_legend + 0.8
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    step = 0.8 / len(rows)
    for number, row in enumerate(rows):
        places = [place + step * (number - (len(rows) - 1) / 2) for place in range(len(names))]
        _draw_row(axes, row, names, places, marks[row.label])
    axes.set_yticks(range(len(names)), [short(name) for name in names], color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("top-1 lost, points")
    handles = [
        Line2D([], [], label=short(label, LETTERS), linestyle="", **_looks(mark))
        for label, mark in marks.items()
    ]
    figure.legend(handles=handles, loc="lower left", ncols=columns, fontsize=8, frameon=False)
    return figure


def _draw_row(axes: Axes, row: Row, names: Sequence[str], places: Sequence[float], mark: Mark) -> None:
    modes = replacements_of(row)
    for name, place in zip(names, places, strict=True):
        if name not in modes:
            continue
        values = values_at(row, ROUTERS, modes[name], LOST)
        estimate = estimate_at(row, ROUTERS, modes[name], LOST)
        axes.plot(values, [place] * len(values), ".", color=INK, markersize=3, alpha=0.5, markeredgewidth=0)
        axes.errorbar(
            [estimate.mean],
            [place],
            xerr=(estimate.high - estimate.low) / 2 if estimate.n > 1 else None,
            elinewidth=0.9,
            linestyle="",
            **_looks(mark),
        )


def _looks(mark: Mark) -> dict[str, Any]:
    return {"color": mark.colour, "marker": mark.shape, "markerfacecolor": mark.fill, "markersize": 5}
