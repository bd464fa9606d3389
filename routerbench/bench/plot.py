"""The plot: every contestant's time over that of its dense twin, case by case."""

from collections.abc import Sequence
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
TITLES = {
    "layer": "One layer, forward and backward",
    "router": "A router alone, forward and backward",
    "model": "A training step of a whole model",
}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100)
ROW_INCHES = 0.34
# A row is what is compared, a mark is who; each point says both, with its ratio.
Point = tuple[str, str, Spread]


def draw(cases: Sequence[Record], references: Sequence[Reference], origin: str, path: Path) -> None:
    """Write the plot, a panel for each kind of case, as .png or .svg; ValueError where nothing was timed."""
    panels = {kind: _points([case for case in cases if case["kind"] == kind]) for kind in TITLES}
    panels = {kind: points for kind, points in panels.items() if points}
    if not panels:
        raise ValueError(f"plot={str(path)!r} has nothing to show: no layer, router or model was timed")
    heights = [len({row for row, _, _ in points}) + 2 for points in panels.values()]
    figure = Figure(figsize=(9, ROW_INCHES * sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (kind, points) in zip(axes, panels.items(), strict=True):
        _panel(axis, points, _targets(kind, cases, references))
        axis.set_title(TITLES[kind], loc="left", fontsize=10, fontweight="bold")
    axes[-1].set_xlabel(
        "time over that of the dense twin (log scale): median over rounds, line from quartile to quartile"
    )
    figure.supxlabel(origin.partition("; routerbench")[0], fontsize=7, color="0.35")
    figure.savefig(path, dpi=160)


def _points(cases: Sequence[Record]) -> list[Point]:
    """Layers and models have a row for each case and a mark for each contestant; routers the other way."""
    points = []
    for case in cases:
        for name in names([case], without=(DENSE, GEMM)):
            ratio = time_ratio(case, name)
            row, mark = (name, label(case)) if case["kind"] == "router" else (_row(case), name)
            if ratio is not None:
                points.append((row, mark, ratio))
    return points


def _row(case: Record) -> str:
    return f"{case['router']} {label(case)}" if case["kind"] == "layer" else label(case)


def _panel(axis: Axes, points: Sequence[Point], targets: Sequence[tuple[str, str, float]]) -> None:
    rows = list(dict.fromkeys(row for row, _, _ in points))
    marks = list(dict.fromkeys(mark for _, mark, _ in points))
    for number, mark in enumerate(marks):
        colour, shape = STYLES[number % len(STYLES)]
        mine = [(row, ratio) for row, name, ratio in points if name == mark]
        middle = [ratio.median for _, ratio in mine]
        error = [
            [ratio.median - ratio.low for _, ratio in mine],
            [ratio.high - ratio.median for _, ratio in mine],
        ]
        height = [rows.index(row) + _offset(number, len(marks)) for row, _ in mine]
        axis.errorbar(
            middle, height, xerr=error, fmt=shape, color=colour, markersize=5, capsize=2, label=mark
        )
    _draw_targets(axis, rows, targets)
    axis.axvline(1, color="black", linewidth=0.8, linestyle="--", label="dense twin")
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(TICKS))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)


def _offset(number: int, count: int) -> float:
    """Height of a mark beside the middle of its row, so that marks do not hide one another."""
    return 0.0 if count == 1 else 0.5 * (number / (count - 1) - 0.5)


def _targets(
    kind: str, cases: Sequence[Record], references: Sequence[Reference]
) -> list[tuple[str, str, float]]:
    """Of the references of these cases: the row, what it is, the ratio."""
    rows = {case["case"]: _row(case) for case in cases if case["kind"] == kind}
    return [
        (reference.contestant if kind == "router" else rows[reference.case], reference.label, reference.ratio)
        for reference in references
        if reference.case in rows
    ]


def _draw_targets(axis: Axes, rows: Sequence[str], targets: Sequence[tuple[str, str, float]]) -> None:
    for name, marker in zip(dict.fromkeys(what for _, what, _ in targets), "|*12", strict=False):
        mine = [(ratio, rows.index(row)) for row, what, ratio in targets if what == name and row in rows]
        if mine:
            axis.plot(*zip(*mine, strict=True), marker, color="0.25", markersize=11, label=name)
