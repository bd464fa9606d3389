"""Forest plot: the differences of a board, each with its interval, its verdict and its single seeds."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.figures.picture import Picture
from routerbench.figures.style import (
    ACCENT,
    BETTER,
    FAINT,
    INK,
    MUTED,
    PAPER,
    WIDTH_INCHES,
    WORSE,
    drawing,
    short,
)
from routerbench.report.boards.board import Board
from routerbench.report.boards.pairs import Pair

MAX_PAIRS = 40
LOOKS = {  # shape, line and inside: a verdict can be told without its colour
    "better": ("^", BETTER, BETTER),
    "worse": ("v", WORSE, WORSE),
    "equivalent": ("s", ACCENT, ACCENT),
    "undecided": ("o", MUTED, PAPER),
    "not tested": ("x", MUTED, MUTED),
}
SIGNS = {"better": "▲", "worse": "▼", "equivalent": "■", "undecided": "○", "not tested": "✕"}


def forest(board: Board) -> Picture | None:
    """The differences of the board's pairs in points, a panel for each reference; None without any."""
    pairs = [pair for pair in board.pairs.pairs if not math.isnan(pair.difference.mean)]
    if not pairs:
        return None
    shown = pairs[:MAX_PAIRS]
    references = list(dict.fromkeys(pair.reference for pair in shown))
    panels = [[pair for pair in shown if pair.reference == reference] for reference in references]
    with drawing():
        heights = [len(panel) + 1.6 for panel in panels]
        figure = Figure(figsize=(WIDTH_INCHES, 0.27 * sum(heights) + 0.35))
        grid = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _draw(axes, board, panel)
        grid[-1, 0].set_xlabel("difference in points")
    return Picture("Differences, paired by seed", _description(board, pairs), figure)


def _draw(axes: Axes, board: Board, pairs: Sequence[Pair]) -> None:
    delta = 100 * board.pairs.delta
    axes.axvspan(-delta, delta, color=FAINT, alpha=0.6, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for place, pair in enumerate(pairs):
        _draw_pair(axes, place, pair, _by_seed(board, pair))
    labels = [short(board.rows[pair.row].label) for pair in pairs]
    axes.set_yticks(range(len(pairs)), labels, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_title(f"minus {short(board.rows[pairs[0].reference].label)}")
    axes.spines["left"].set_visible(False)


def _draw_pair(axes: Axes, place: int, pair: Pair, by_seed: Sequence[float]) -> None:
    marker, line, inside = LOOKS[_verdict(pair)]
    low, mean, high = (
        100 * value for value in (pair.difference.low, pair.difference.mean, pair.difference.high)
    )
    if not math.isnan(low):
        axes.plot([low, high], [place, place], color=line, linewidth=1.4, solid_capstyle="butt")
    below = [place + 0.3] * len(by_seed)
    axes.plot(by_seed, below, ".", color=INK, markersize=3.5, alpha=0.6, markeredgewidth=0)
    axes.plot([mean], [place], marker, color=line, markerfacecolor=inside, markersize=6, markeredgewidth=1.2)


def _by_seed(board: Board, pair: Pair) -> list[float]:
    own, other = board.rows[pair.row].scores, board.rows[pair.reference].scores
    return [100 * (own[seed] - other[seed]) for seed in sorted(own.keys() & other.keys())]


def _verdict(pair: Pair) -> str:
    return pair.verdict if pair.tested else "not tested"


def _description(board: Board, pairs: Sequence[Pair]) -> str:
    verdicts = [_verdict(pair) for pair in pairs]
    counts = [f"{sign} {name}: {verdicts.count(name)}" for name, sign in SIGNS.items() if name in verdicts]
    delta = board.pairs.delta
    left_out = len(pairs) - MAX_PAIRS
    parts = [
        f"{board.metric.label.removesuffix(' %')} minus that of the reference, in points, with its 95 % "
        f"interval; small dots are single seeds, the band is delta, ± {100 * delta:g} points. "
        f"{', '.join(counts)}.",
        *([f"The last {left_out} pairs are not drawn."] if left_out > 0 else []),
    ]
    return " ".join(parts)
