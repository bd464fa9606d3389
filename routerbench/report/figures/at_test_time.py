"""Accuracy against executed FLOPs at test time: a line a row by capacity, with and without batch priority."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from routerbench.report.boards.at_test_time import CAPACITY
from routerbench.report.boards.board import Board
from routerbench.report.boards.cells import DENSE
from routerbench.report.boards.evaluated import estimate_at, modes_of
from routerbench.report.boards.modes import DROPLESS, TRAINED, Evaluated, read_mode
from routerbench.report.boards.rows import CONFIDENCE, Row
from routerbench.report.figures.marks import Mark, marks_of
from routerbench.report.figures.picture import Picture
from routerbench.report.figures.style import INK, MUTED, PAPER, WIDTH_INCHES, drawing, short
from routerbench.report.options import TOP1
from routerbench.stats import Estimate, t_interval

MAX_ROWS = 8
HEIGHT_INCHES, INCHES_PER_LINE, LEGEND_COLUMNS, LETTERS = 3.4, 0.18, 3, 26
PRIORITIES = {"batch_priority=false": "-", "batch_priority=true": "--"}  # with their lines
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


Points = Mapping[Evaluated, _Point]


def accuracy_against_flops(board: Board) -> Picture | None:
    """The rows that were evaluated at several capacities, with dense beside them; None without any."""
    rows = [row for row in board.rows if row.router != DENSE]
    told = {row.label: points for row in rows if len(points := _points(row)) > 1}
    if not told:
        return None
    shown = dict(list(told.items())[:MAX_ROWS])
    dense = [(row.label, point) for row in board.rows if row.router == DENSE and (point := _dense(row))]
    marks = marks_of({row.label: row.router for row in rows if row.label in shown})
    left_out = f" The last {len(told) - len(shown)} rows are not drawn." if len(told) > len(shown) else ""
    with drawing():
        figure = _figure(shown, marks, dense)
    return Picture("Accuracy against executed FLOPs at test time", WORDS + left_out, figure)


def _points(row: Row) -> dict[Evaluated, _Point]:
    """The modes whose FLOPs and accuracy are known and that change no more than slots and priority."""
    found = {}
    for name in modes_of(row, CAPACITY):
        mode, flops = read_mode(name), estimate_at(row, CAPACITY, name, "executed_flops_per_image")
        top1 = estimate_at(row, CAPACITY, name, "top1")
        if mode is not None and mode.rest in (PLAIN, *PRIORITIES) and flops.n and top1.n:
            found[mode] = _Point(flops.mean, top1)
    return found


def _dense(row: Row) -> _Point | None:
    """A dense row as its training left it, as there is nothing that an evaluation could change."""
    known = [one for one in (row.cost.flops_per_image_eval, row.cost.flops_per_image) if not math.isnan(one)]
    path = f"metrics.{TOP1}"
    top1 = [float(run[path]) for run in row.runs if run["status"] == "done" and path in run]
    return _Point(known[0], t_interval(top1, CONFIDENCE)) if known and top1 else None


def _figure(
    shown: Mapping[str, Points], marks: Mapping[str, Mark], dense: Sequence[tuple[str, _Point]]
) -> Figure:
    giga = any(point.flops >= 1e9 for points in shown.values() for point in points.values())
    unit, scale = ("GFLOPs", 1e9) if giga else ("MFLOPs", 1e6)
    handles = _legend(marks, [label for label, _ in dense])
    height = HEIGHT_INCHES + INCHES_PER_LINE * math.ceil(len(handles) / LEGEND_COLUMNS)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    for label, points in shown.items():
        _draw_row(axes, points, marks[label], scale)
    for _, point in dense:
        axes.axhline(100 * point.top1.mean, color=MUTED, linewidth=0.8, linestyle=":", zorder=0)
        _draw(axes, [point], scale, **DENSE_LOOKS)
    axes.grid()
    axes.set_axisbelow(True)
    axes.set_xlabel(f"executed FLOPs per image, {unit}")
    axes.set_ylabel("top-1 %")
    figure.legend(handles=handles, loc="outside lower left", ncols=LEGEND_COLUMNS, fontsize=8, frameon=False)
    return figure


def _draw_row(axes: Axes, points: Points, mark: Mark, scale: float) -> None:
    """A line for each priority, or one where there is no choice; each ends dropless, which none changes."""
    alone = {mode: point for mode, point in points.items() if mode.rest == PLAIN}
    chosen = [rest for rest in PRIORITIES if any(mode.rest == rest for mode in points)]
    looks: dict[str, Any] = {"color": mark.colour, "marker": mark.shape, "markerfacecolor": mark.fill}
    for rest in chosen:
        line = [point for mode, point in points.items() if mode.rest == rest]
        ends = [point for mode, point in alone.items() if mode.slots == DROPLESS]
        _draw(axes, [*line, *ends], scale, linestyle=PRIORITIES[rest], **looks)
    if not chosen:
        _draw(axes, list(alone.values()), scale, linestyle="-", **looks)
    for mode, point in alone.items():
        if mode.slots == DROPLESS:
            _draw(axes, [point], scale, color=mark.colour, marker="*", markersize=10)
        if mode.slots == TRAINED:
            ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "linestyle": ""}
            _draw(axes, [point], scale, color=mark.colour, **ring)


def _draw(axes: Axes, points: Sequence[_Point], scale: float, **looks: Any) -> None:
    """The points from the cheapest, each with its interval if it has one."""
    ordered = sorted(points, key=lambda point: point.flops)
    axes.errorbar(
        [point.flops / scale for point in ordered],
        [100 * point.top1.mean for point in ordered],
        yerr=[50 * (point.top1.high - point.top1.low) if point.top1.n > 1 else 0.0 for point in ordered],
        elinewidth=0.6,
        **({"markersize": 5, "linewidth": 1} | looks),
    )


def _legend(marks: Mapping[str, Mark], dense: Sequence[str]) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=mark.colour,
            marker=mark.shape,
            markerfacecolor=mark.fill,
            label=short(label, LETTERS),
        )
        for label, mark in marks.items()
    ]
    handles += [Line2D([], [], label=short(label, LETTERS), **DENSE_LOOKS) for label in dense]
    lines = {"with batch priority": {"linestyle": "--"}, "without": {"linestyle": "-"}}
    signs = {"dropless": {"marker": "*"}, "as trained": {"marker": "o", "markerfacecolor": "none"}}
    handles += [Line2D([], [], color=MUTED, label=label, **looks) for label, looks in lines.items()]
    return handles + [
        Line2D([], [], color=MUTED, linestyle="", label=label, **looks) for label, looks in signs.items()
    ]
