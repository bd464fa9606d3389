"""Average ranks over many cells -> the critical-difference diagram (Demsar 2006, figure 1)."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, MUTED, WIDTH_INCHES, drawing, short
from routerbench.report.across.block import block_of
from routerbench.report.across.gains import ALPHA, ENOUGH_CELLS, rank_notes
from routerbench.report.boards.board import Board
from routerbench.stats import average_ranks, critical_difference, groups_within

INCHES_PER_LINE = 0.21
LINES_ABOVE = 4.2  # the critical difference, the numbers of the ranks and their line
LEFT, RIGHT = 0.33, 0.67  # where the line of ranks begins and ends, shares of the width
MOST_LETTERS = 24


def critical_difference_pictures(boards: Sequence[Board]) -> list[Picture]:
    """One diagram from eight cells on, none below: there the ranks say too little."""
    block = block_of(boards)
    if block is None or len(block.cells) < ENOUGH_CELLS:
        return []
    ranks = average_ranks(block.means).tolist()
    order = sorted(zip(ranks, block.names, strict=True))
    told = ", ".join(f"{name} {rank:.2f}" for rank, name in order)
    heading = f"Average ranks over {len(block.cells)} cells, 1 the best: {told}"
    description = ". ".join([heading, *rank_notes(block)]) + "."
    with drawing():
        figure = _figure(order, critical_difference(len(ranks), len(block.cells), ALPHA))
    return [Picture("Critical differences of average ranks", description, figure)]


def _figure(order: Sequence[tuple[float, str]], difference: float) -> Figure:
    """The better half of the names to the left, the others to the right, bars over who is not told apart."""
    groups = groups_within([rank for rank, _ in order], difference)
    half = (len(order) + 1) // 2
    below = 0.8 * len(groups) + half + 1
    figure = Figure(figsize=(WIDTH_INCHES, INCHES_PER_LINE * (below + LINES_ABOVE)))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(below, -LINES_ABOVE)
    _draw_scale(axes, len(order), difference)
    for level, ends in enumerate(groups, 1):
        bar = [
            _across(rank, len(order)) + outwards for rank, outwards in zip(ends, (-0.005, 0.005), strict=True)
        ]
        axes.plot(bar, [0.8 * level] * 2, color=INK, linewidth=4, solid_capstyle="butt")
    for place, (rank, name) in enumerate(order):
        level = 0.8 * len(groups) + 1 + min(place, len(order) - 1 - place)
        _draw_name(
            axes, _across(rank, len(order)), level, f"{short(name, MOST_LETTERS)}  {rank:.2f}", place < half
        )
    return figure


def _across(rank: float, num_rows: int) -> float:
    """Where a rank stands, a share of the width."""
    return LEFT + (rank - 1) / (num_rows - 1) * (RIGHT - LEFT)


def _draw_scale(axes: Axes, num_rows: int, difference: float) -> None:
    """The line of ranks, and above it how long the critical difference is."""
    axes.plot([LEFT, RIGHT], [0, 0], color=INK, linewidth=1)
    for rank in range(1, num_rows + 1):
        place = _across(float(rank), num_rows)
        axes.plot([place, place], [0, -0.4], color=INK, linewidth=1)
        axes.text(place, -0.6, str(rank), ha="center", va="bottom", fontsize=8)
    length = [LEFT, _across(1 + difference, num_rows)]
    axes.plot(length, [-2.4, -2.4], color=MUTED, linewidth=1.5, marker="|")
    axes.text(LEFT, -2.8, f"critical difference {difference:.2f}", ha="left", va="bottom", fontsize=8)


def _draw_name(axes: Axes, place: float, level: float, text: str, left: bool) -> None:
    """A line from the rank down and out to the name."""
    end, name = (LEFT - 0.03, LEFT - 0.04) if left else (RIGHT + 0.03, RIGHT + 0.04)
    axes.plot([place, place, end], [0, level, level], color=MUTED, linewidth=0.8)
    axes.text(name, level, text, ha="right" if left else "left", va="center", fontsize=8)
