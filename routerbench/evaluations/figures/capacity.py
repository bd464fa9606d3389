"""Accuracy against executed FLOPs: one trained model in many modes, and its dense twin."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.evaluations.measurement import Result
from routerbench.figures.marks import COLOURS, SHAPES
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, MUTED, WIDTH_INCHES, drawing

HEIGHT_INCHES = 4.4
UNITS = ((1e9, "GFLOPs"), (1e6, "MFLOPs"))
DESCRIPTION = (
    "Top-1 of one trained model against the FLOPs that it executes for a test image, at other capacities "
    "than it was trained at. A line is a number of choices of a token (top_k), with batch priority or "
    "without, from the smallest capacity factor, which is written beside a point, to the largest. A star: no "
    "token is dropped."
)
Line = tuple[int | None, bool | None, str | int | None]


def capacity_picture(results: Mapping[str, Result], twin: Result | None) -> Picture:
    """The results of modes by name, and the record of the dense twin."""
    most = max(result["executed_flops_per_image"] for result in results.values())
    factor, unit = next((one for one in UNITS if most >= one[0]), UNITS[-1])
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES))
        axes = figure.subplots()
        _draw_lines(axes, list(results.values()), factor)
        _draw_marked(axes, results, factor)
        if twin is not None:
            cost, score = twin["cost"]["flops_per_image_eval"] / factor, 100 * twin["metrics"]["test/top1"]
            axes.plot([cost], [score], label="dense twin", **_hollow("D", 7))
        axes.set_xlabel(f"executed FLOPs per image, {unit}")
        axes.set_ylabel("test top-1 %")
        axes.grid()
        axes.set_axisbelow(True)
        figure.legend(loc="lower left", ncols=3, fontsize=8, frameon=False)
    return Picture("Accuracy against executed FLOPs", DESCRIPTION, figure)


def _draw_lines(axes: Axes, results: Sequence[Result], factor: float) -> None:
    limited = [result for result in results if not result["dropless"]]
    lines: list[Line] = list(dict.fromkeys(map(_line, limited)))
    top_ks = dict.fromkeys(top_k for top_k, *_ in lines)
    colours = {top_k: COLOURS[place % len(COLOURS)] for place, top_k in enumerate(top_ks)}
    for place, line in enumerate(lines):
        own = [one for one in results if _line(one) == line or (one["dropless"] and one["top_k"] == line[0])]
        own.sort(key=_size)
        colour, queued = colours[line[0]], bool(line[1])
        axes.plot(
            *_places(own, factor),
            color=colour,
            linestyle="-" if queued else "--",
            linewidth=1.2,
            marker=SHAPES[place % len(SHAPES)],
            markersize=4.5,
            markerfacecolor=colour if queued else "none",
            label=_label(line, tell_group=len({group for _, _, group in lines}) > 1),
        )
        if place in (0, len(lines) - 1):
            _write_factors(axes, own, factor, below=place == 0)


def _draw_marked(axes: Axes, results: Mapping[str, Result], factor: float) -> None:
    """Which mode is the run's own, and which drop nothing."""
    own = [result for name, result in results.items() if name == "trained"]
    axes.plot(*_places(own, factor), label="as trained", **_hollow("o", 11))
    dropless = [result for result in results.values() if result["dropless"]]
    if dropless:
        axes.plot(*_places(dropless, factor), label="dropless", **_hollow("*", 13))


def _write_factors(axes: Axes, results: Sequence[Result], factor: float, below: bool) -> None:
    """The capacity factors beside the points, the last of which may lie on one another."""
    written = -math.inf
    costs, scores = _places(results, factor)
    least = (max(costs) - min(costs)) / 14
    for cost, score, result in zip(costs, scores, results, strict=True):
        if result["capacity_factor"] is not None and cost - written > least:
            place: dict[str, Any] = {"xytext": (0, -12 if below else 6), "ha": "center", "fontsize": 7.5}
            text = f"{result['capacity_factor']:g}"
            axes.annotate(text, (cost, score), textcoords="offset points", color=MUTED, **place)
            written = cost


def _places(results: Sequence[Result], factor: float) -> tuple[list[float], list[float]]:
    costs = [result["executed_flops_per_image"] / factor for result in results]
    return costs, [100 * result["top1"] for result in results]


def _line(result: Result) -> Line:
    return result["top_k"], result["batch_priority"], result.get("group")


def _label(line: Line, tell_group: bool) -> str:
    top_k, queued, group = line
    choices = "capacity" if top_k is None else f"top_k {top_k}"
    order = "" if queued is None else f", {'batch priority' if queued else 'token order'}"
    return choices + order + (f", group {group}" if tell_group else "")


def _size(result: Result) -> float:
    """What the modes of a line are ordered by; a fixed number of slots has no factor, but its FLOPs."""
    return result["executed_flops_per_image"]


def _hollow(shape: str, size: int) -> dict[str, Any]:
    return {
        "marker": shape,
        "markersize": size,
        "color": INK,
        "markerfacecolor": "none",
        "linestyle": "none",
    }
