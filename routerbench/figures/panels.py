"""Small panels beside and below one another."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.figures.style import MUTED, WIDTH_INCHES
from routerbench.printable import printable

MAX_COLUMNS = 4
TITLE_LETTERS, TITLE_LINES = 17, 3


def panels(count: int, height: float, x: str, y: str, share: bool) -> tuple[Figure, Sequence[Axes]]:
    """A figure with so many panels, each of this height in inches; `share`: with axes in common."""
    columns = min(count, MAX_COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH_INCHES, height * rows + 0.3))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    for axes in grid[max(count - columns, 0) : count]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel(x, size=9, color=MUTED)
    figure.supylabel(y, size=9, color=MUTED)
    return figure, list(grid[:count])


def panel_title(label: str) -> str:
    """A name in the few short lines that a panel has room for."""
    return textwrap.fill(printable(label), TITLE_LETTERS, max_lines=TITLE_LINES, placeholder="…")
