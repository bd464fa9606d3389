"""Accuracy against executed FLOPs at test time: a line a row by capacity, with and without batch priority."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from routerbench.figures.margins import legend_room
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, MUTED, PAPER, WIDTH_INCHES, drawing, short
from routerbench.report.boards.at_test_time import CAPACITY
from routerbench.report.boards.board import Board
from routerbench.report.boards.cells import DENSE
from routerbench.report.boards.evaluated import estimate_at, modes_of
from routerbench.report.boards.modes import DROPLESS, TRAINED, Evaluated, read_mode
from routerbench.report.boards.rows import Row
from routerbench.report.figures.marks import Mark, marks_of
from routerbench.report.options import TOP1
from routerbench.stats import CONFIDENCE, Estimate, t_interval

MAX_ROWS = 8
HEIGHT_INCHES, LETTERS = 3.4, 26
LINES = {"batch_priority=false": "-", "batch_priority=true": "--"}
PLAIN = ""  # what else a mode changes that changes its slots alone
DENSE_LOOKS: dict[str, Any] = {"color": INK, "marker": "d", "markerfacecolor": PAPER, "linestyle": ""}
WORDS = (
    "Top-1 of the trained models against the FLOPs that they executed of an image, by the slots that were "
    "filled, as their capacity is changed after training; mean over seeds, bars: 95 % t-interval. Dashed: "
    "with batch priority. Star: dropless. Ring: as trained."
)


@dataclass(frozen=True)
class _Point:
    """One mode of a row: FLOPs per image, and top-1 as a fraction."""

    flops: float
    top1: Estimate


@dataclass(frozen=True)
class _Own:
    """What is known of a row; `priority`: as it was trained, in the words of a mode."""

    points: Mapping[Evaluated, _Point]
    priority: str


def accuracy_against_flops(board: Board) -> Picture | None:
    """The rows that were evaluated at several capacities, with dense beside them; None without any."""
    rows = [row for row in board.rows if row.router != DENSE]
    told = {row.label: own for row in rows if len((own := _own(row)).points) > 1}
    if not told:
        return None
    shown = dict(list(told.items())[:MAX_ROWS])
    dense = [(row.label, point) for row in board.rows if row.router == DENSE and (point := _dense(row))]
    marks = marks_of({row.label: row.router for row in rows if row.label in shown})
    left_out = f" The last {len(told) - len(shown)} rows are not drawn." if len(told) > len(shown) else ""
    with drawing():
        figure = _figure(shown, marks, dense)
    return Picture("Accuracy against executed FLOPs at test time", WORDS + left_out, figure)


def _own(row: Row) -> _Own:
    """The modes whose FLOPs and accuracy are known and that change no more than slots and priority."""
    points = {}
    for name in modes_of(row, CAPACITY):
        mode, flops = read_mode(name), estimate_at(row, CAPACITY, [name], "executed_flops_per_image")
        top1 = estimate_at(row, CAPACITY, [name], "top1")
        if mode is not None and mode.rest in (PLAIN, *LINES) and flops.n and top1.n:
            points[mode] = _Point(flops.mean, top1)
    return _Own(points, f"batch_priority={str(row.settings.get('router.batch_priority') is True).lower()}")


def _dense(row: Row) -> _Point | None:
    """A dense row as its training left it, as there is nothing that an evaluation could change."""
    known = [one for one in (row.cost.flops_per_image_eval, row.cost.flops_per_image) if not math.isnan(one)]
    path = f"metrics.{TOP1}"
    top1 = [float(run[path]) for run in row.runs if run["status"] == "done" and path in run]
    return _Point(known[0], t_interval(top1, CONFIDENCE)) if known and top1 else None


def _figure(
    shown: Mapping[str, _Own], marks: Mapping[str, Mark], dense: Sequence[tuple[str, _Point]]
) -> Figure:
    giga = any(point.flops >= 1e9 for own in shown.values() for point in own.points.values())
    unit, scale = ("GFLOPs", 1e9) if giga else ("MFLOPs", 1e6)
    handles = _legend(marks, [label for label, _ in dense])
    columns, of_legend = legend_room([str(handle.get_label()) for handle in handles])
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES + of_legend))
    axes = figure.subplots()
    for label, own in shown.items():
        _draw_row(axes, own, marks[label], scale)
    for _, point in dense:
        axes.axhline(100 * point.top1.mean, color=MUTED, linewidth=0.8, linestyle=":", zorder=0)
        _draw(axes, [point], scale, **DENSE_LOOKS)
    axes.grid()
    axes.set_axisbelow(True)
    axes.set_xlabel(f"executed FLOPs per image, {unit}")
    axes.set_ylabel("top-1 %")
    figure.legend(handles=handles, loc="lower left", ncols=columns, fontsize=8, frameon=False)
    return figure


def _draw_row(axes: Axes, own: _Own, mark: Mark, scale: float) -> None:
    """A line for each priority, from the cheapest mode to dropless."""
    looks: dict[str, Any] = {"color": mark.colour, "marker": mark.shape, "markerfacecolor": mark.fill}
    for rest in dict.fromkeys(mode.rest for mode in own.points):
        line = [point for mode, point in own.points.items() if mode.rest == rest]
        _draw(axes, line, scale, linestyle=LINES[rest or own.priority], **looks)
    stars = [point for mode, point in own.points.items() if mode.slots == DROPLESS]
    _draw(axes, stars, scale, color=mark.colour, linestyle="", marker="*", markersize=10)
    rings = [point for mode, point in own.points.items() if mode == Evaluated(TRAINED, PLAIN)]
    ring = {"linestyle": "", "marker": "o", "markersize": 9, "markerfacecolor": "none"}
    _draw(axes, rings, scale, color=mark.colour, **ring)


def _draw(axes: Axes, points: Sequence[_Point], scale: float, **looks: Any) -> None:
    """The points from the cheapest, each with its interval if it has one."""
    ordered = sorted(points, key=lambda point: point.flops)
    axes.errorbar(
        [point.flops / scale for point in ordered],
        [100 * point.top1.mean for point in ordered],
        yerr=[50 * (point.top1.high - point.top1.low) if point.top1.n > 1 else 0.0 for point in ordered],
        elinewidth=0.6,
        linewidth=1,
        **{"markersize": 5, **looks},
    )


def _legend(marks: Mapping[str, Mark], dense: Sequence[str]) -> list[Line2D]:
    """The rows, then what their lines and signs mean."""
    looks: list[tuple[str, dict[str, Any]]] = [
        (label, {"color": mark.colour, "marker": mark.shape, "markerfacecolor": mark.fill})
        for label, mark in marks.items()
    ]
    looks += [(label, DENSE_LOOKS) for label in dense]
    looks += [
        ("with batch priority", {"color": MUTED, "linestyle": "--"}),
        ("without", {"color": MUTED}),
        ("dropless", {"color": MUTED, "linestyle": "", "marker": "*"}),
        ("as trained", {"color": MUTED, "linestyle": "", "marker": "o", "markerfacecolor": "none"}),
    ]
    return [Line2D([], [], label=short(label, LETTERS), **own) for label, own in looks]
