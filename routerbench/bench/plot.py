"""The plot: every contestant's time over that of its dense twin, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from routerbench.bench.results import Record, Reference, Spread, time_ratio
from routerbench.bench.tables import DENSE, GEMM, label, names

# Okabe and Ito's colours, safe for the colour-blind; the marks alone tell them apart in black and white.
STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
)
REFERENCE_MARKS = ("*", "h", "|", "+")
TITLES = {
    "layer": "One layer, forward and backward",
    "router": "A router alone, forward and backward",
    "model": "A training step of a whole model",
}
# A definition that takes twenty times as long would press all others together.
LARGEST_RATIO = 5.0
ROW_INCHES = 0.36


@dataclass(frozen=True)
class Point:
    """A ratio, the row that it stands in and the mark that says whose it is."""

    row: str
    mark: str
    ratio: Spread


def draw(cases: Sequence[Record], references: Sequence[Reference], origin: str, path: Path) -> None:
    """Write the plot, a panel for each kind of case, as .png or .svg; ValueError where nothing was timed."""
    panels = {kind: _points([case for case in cases if case["kind"] == kind]) for kind in TITLES}
    panels = {kind: points for kind, points in panels.items() if points}
    if not panels:
        raise ValueError(f"plot={str(path)!r} has nothing to show: no layer, router or model was timed")
    heights = [len({point.row for point in points}) + 1 for points in panels.values()]
    figure = Figure(figsize=(9, ROW_INCHES * (sum(heights) + 2 * len(panels))), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (kind, points) in zip(axes, panels.items(), strict=True):
        heights_of = _heights(points)
        axis.axvline(1, color="black", linewidth=1, linestyle="--", label="dense twin", zorder=2)
        _draw_references(axis, heights_of, cases, references)
        _draw_points(axis, heights_of, points)
        _finish(axis, list(dict.fromkeys(point.row for point in points)), points)
        axis.set_title(TITLES[kind], loc="left", fontsize=10, fontweight="bold")
    axes[-1].set_xlabel(
        "time over that of the dense twin, log scale (median; line: quartiles over rounds)", fontsize=9
    )
    figure.supxlabel(origin.partition("; routerbench")[0], fontsize=7, color="0.35")
    figure.savefig(path, dpi=160)


def _points(cases: Sequence[Record]) -> list[Point]:
    points = []
    for case in cases:
        for name in names([case], without=(DENSE, GEMM)):
            ratio = time_ratio(case, name)
            if ratio is not None:
                points.append(Point(*_place(case, name), ratio))
    return points


def _place(case: Record, name: str) -> tuple[str, str]:
    """Row and mark: a row for each case and a mark for each contestant, but for routers the other way."""
    if case["kind"] == "router":
        return name, label(case)
    if case["kind"] == "model":
        return label(case).replace(" ", "\n", 1), name
    return f"{case['router']} {label(case)}", name


def _heights(points: Sequence[Point]) -> dict[tuple[str, str], float]:
    """Where each mark stands in each row, so that those of a row do not hide one another."""
    rows = dict.fromkeys(point.row for point in points)
    marks = dict.fromkeys(point.mark for point in points)
    return {
        (row, mark): middle + (number + 0.5) / len(marks) * 0.8 - 0.4
        for middle, row in enumerate(rows)
        for number, mark in enumerate(marks)
    }


def _draw_points(axis: Axes, heights: dict[tuple[str, str], float], points: Sequence[Point]) -> None:
    for number, mark in enumerate(dict.fromkeys(point.mark for point in points)):
        colour, shape = STYLES[number % len(STYLES)]
        mine = [point for point in points if point.mark == mark]
        middles = [min(point.ratio.median, LARGEST_RATIO) for point in mine]
        lows = [min(point.ratio.low, LARGEST_RATIO) for point in mine]
        highs = [min(point.ratio.high, LARGEST_RATIO) for point in mine]
        height = [heights[point.row, mark] for point in mine]
        axis.hlines(height, lows, highs, color=colour, zorder=4)
        axis.plot(middles, height, shape, color=colour, markersize=5, label=mark, zorder=4, clip_on=False)
        for point in mine:
            if point.ratio.median > LARGEST_RATIO:
                place = (LARGEST_RATIO * 0.96, heights[point.row, mark])
                axis.annotate(f"{point.ratio.median:.0f} →", place, fontsize=7, ha="right", va="center")


def _draw_references(
    axis: Axes,
    heights: dict[tuple[str, str], float],
    cases: Sequence[Record],
    references: Sequence[Reference],
) -> None:
    """Each on its contestant's height, or in the middle of the row where it is for all of a case."""
    by_name = {case["case"]: case for case in cases}
    labels = dict.fromkeys((reference.label, reference.measured_on) for reference in references)
    for (name, place), shape in zip(labels, REFERENCE_MARKS, strict=False):
        found = []
        for reference in references:
            if (reference.label, reference.measured_on) == (name, place) and reference.case in by_name:
                row, mark = _place(by_name[reference.case], reference.contestant)
                of_row = [height for (other, _), height in heights.items() if other == row]
                if of_row:
                    found.append((reference.ratio, heights.get((row, mark), sum(of_row) / len(of_row))))
        if found:
            ratios, height = zip(*found, strict=True)
            style = {"color": "0.2", "markerfacecolor": "none", "markersize": 9, "linestyle": "none"}
            text = f"{name}\n({place})" if place else name
            axis.plot(ratios, height, marker=shape, label=text, zorder=3, **style)


def _finish(axis: Axes, rows: Sequence[str], points: Sequence[Point]) -> None:
    for number in range(0, len(rows), 2):
        axis.axhspan(number - 0.5, number + 0.5, color="0.95", zorder=0)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xscale("log")
    smallest = min(point.ratio.low for point in points)
    largest = min(axis.dataLim.x1 * 1.1, LARGEST_RATIO)  # of the dense twin and the references, too
    axis.set_xlim(min(0.95, smallest / 1.1), largest)
    axis.xaxis.set_major_locator(FixedLocator(_ticks(largest / smallest)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="0.85", zorder=1)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)


def _ticks(span: float) -> Sequence[int | float]:
    """As many as their labels have room for, by how many times the smallest the largest ratio is."""
    if span > 10:
        return (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
    return (0.5, 0.7, 1, 1.2, 1.5, 2, 3, 4, 5) if span > 2 else (0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2)
