"""Families -> accuracy against cost, with the frontier and how surely each point stands on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from routerbench.figures.margins import legend_room
from routerbench.figures.picture import Picture
from routerbench.figures.style import FAINT, WIDTH_INCHES, drawing, short
from routerbench.report.across.families import Family, families_of
from routerbench.report.across.measures import Measure, Point, measures_of, scores_of, seeds_of
from routerbench.report.across.resampled import NUM_RESAMPLES, RANDOM_SEED
from routerbench.report.boards.board import Board
from routerbench.report.figures.marks import Mark, marks_of
from routerbench.stats import CONFIDENCE, frontier_shares, on_frontier, t_interval

HEIGHT_INCHES = 3.6
MOST_LETTERS = 70
FRONTIER = "Pareto frontier"
TOLD = 0.05  # the least share of resamples of a point off the frontier that is told
APART = (0.09, 0.045)  # shares of the picture's width and height that two numbers keep
ROOM = 0.12  # share of the picture's width that a number needs between its point and the y axis
LEFT: dict[str, Any] = {"xytext": (-4, 5), "ha": "right"}  # of a point, in points
RIGHT: dict[str, Any] = {"xytext": (5, -10), "ha": "left"}
DESCRIPTION = (
    "{label} against {name}. A point is the mean over the seeds of a configuration at one scale, its bar the "
    "95 % t-interval; lines join the scales of a configuration. The broad line is the Pareto frontier: what "
    "costs as much or more and scores less lies below it. Numbers beside it: in how many draws of one seed "
    "fewer than there are a point stands on it, roughly where they are few. On it: {on}. Else on it in 5 % "
    "of the draws or more: {off}."
)


@dataclass(frozen=True, eq=False)
class Points:
    """All points of a family along one measure, with their mean scores and their shares on the frontier."""

    measure: Measure
    names: Sequence[str]
    scales: Sequence[str]
    points: Sequence[Point]
    costs: np.ndarray
    means: np.ndarray
    on: np.ndarray
    shares: np.ndarray


def cost_pictures(boards: Sequence[Board]) -> list[Picture]:
    """For each family of cells a picture for the FLOPs, the time on each device and the parameters.

    None of a family with a single point, which there is nothing to compare with.
    """
    return [
        _picture(family, points)
        for family in families_of(boards)
        for measure in measures_of(family)
        if len((points := _points(family, measure)).points) > 1
    ]


def _points(family: Family, measure: Measure) -> Points:
    pairs = [(one.name, point) for one in family.configurations for point in measure.points(one)]
    points = [point for _, point in pairs]
    costs, scores = np.array([point.cost for point in points]), scores_of(points, seeds_of(points))
    means = np.nanmean(scores, axis=1)
    shares = frontier_shares(costs, scores, NUM_RESAMPLES, np.random.default_rng(RANDOM_SEED))
    return Points(
        measure=measure,
        names=[name for name, _ in pairs],
        scales=[point.scale if len(family.scales) > 1 else "" for point in points],
        points=points,
        costs=costs / measure.factor,
        means=means,
        on=on_frontier(costs, means),
        shares=shares,
    )


def _picture(family: Family, points: Points) -> Picture:
    marks = marks_of({one.name: one.router for one in family.configurations if one.name in points.names})
    columns, of_legend = legend_room([FRONTIER, *(short(name, MOST_LETTERS) for name in marks)])
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES + of_legend))
        axes = figure.subplots()
        _draw_frontier(axes, points)
        for name, mark in marks.items():
            _draw_configuration(axes, points, name, mark)
        _finish(axes, points.measure, family.metric.label)
        _write_shares(axes, points)
        figure.legend(loc="lower left", ncols=columns, fontsize=8, frameon=False)
    description = DESCRIPTION.format(
        label=family.metric.label.removesuffix(" %"),
        name=points.measure.name,
        on=_told(points, points.on),
        off=_told(points, ~points.on & (points.shares >= TOLD)),
    )
    return Picture(f"Accuracy against {points.measure.name} · {family.title}", description, figure)


def _told(points: Points, chosen: np.ndarray) -> str:
    """These points in words, from the cheapest, with their shares."""
    texts = []
    for place in _from_the_cheapest(points, chosen):
        name, share = f"{points.names[place]} {points.scales[place]}".rstrip(), _percent(points, place)
        texts.append(f"{name} ({share})" if share else name)
    return ", ".join(texts) or "none"


def _from_the_cheapest(points: Points, chosen: np.ndarray) -> list[int]:
    return sorted(np.flatnonzero(chosen).tolist(), key=lambda place: (points.costs[place], place))


def _percent(points: Points, place: int) -> str:
    share = float(points.shares[place])
    return "" if math.isnan(share) else f"{100 * share:.0f} %"


def _draw_frontier(axes: Axes, points: Points) -> None:
    """In steps, from the cheapest point to the cost of the dearest."""
    order = _from_the_cheapest(points, points.on)
    costs = [*points.costs[order], points.costs.max()]
    means = 100 * points.means[[*order, order[-1]]]
    axes.step(costs, means, where="post", color=FAINT, linewidth=5, zorder=0, label=FRONTIER)


def _write_shares(axes: Axes, points: Points) -> None:
    """The share beside each point of the frontier; of two that would touch the cheaper alone."""
    to_axes = axes.transData + axes.transAxes.inverted()
    written: list[np.ndarray] = []
    for place in _from_the_cheapest(points, points.on):
        where = (float(points.costs[place]), 100 * float(points.means[place]))
        own = to_axes.transform(where)
        if all((np.abs(own - other) > APART).any() for other in written):
            side = RIGHT if own[0] < ROOM else LEFT
            axes.annotate(_percent(points, place), where, textcoords="offset points", fontsize=7.5, **side)
            written.append(own)


def _draw_configuration(axes: Axes, points: Points, name: str, mark: Mark) -> None:
    """The points of a configuration with their intervals, joined from the cheapest."""
    own = [place for place, one in enumerate(points.names) if one == name]
    estimates = [t_interval(list(points.points[place].scores.values()), CONFIDENCE) for place in own]
    axes.errorbar(
        points.costs[own],
        [100 * one.mean for one in estimates],
        yerr=[50 * (one.high - one.low) if one.n > 1 else 0.0 for one in estimates],
        color=mark.colour,
        marker=mark.shape,
        markerfacecolor=mark.fill,
        markersize=5,
        linestyle=mark.line,
        linewidth=1,
        elinewidth=0.6,
        label=short(name, MOST_LETTERS),
    )


def _finish(axes: Axes, measure: Measure, label: str) -> None:
    axes.set_xscale("log")
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    few = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])  # of a decade powers of ten are too few
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 10 * low else few)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid()
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{measure.name}, {measure.unit}, log scale")
    axes.set_ylabel(label)
