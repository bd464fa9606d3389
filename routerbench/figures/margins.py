"""Margins, set once: matplotlib's layout engines measure every text again, and draw twice, for each file."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from routerbench.figures.style import WIDTH_INCHES

PAD = 0.7  # around and between panels, in letters: a tick may grow by one digit as its panel grows
INCHES_PER_LETTER, INCHES_PER_NAME, INCHES_PER_LINE = 0.066, 0.55, 0.18  # of a legend


def legend_room(names: Sequence[str]) -> tuple[int, float]:
    """As many columns of a legend as its longest name leaves room for, and its height in inches."""
    width = INCHES_PER_LETTER * max(map(len, names)) + INCHES_PER_NAME
    columns = max(1, int(WIDTH_INCHES / width))
    return columns, INCHES_PER_LINE * -(-len(names) // columns)


def set_margins(figure: Figure) -> None:
    """Leave room for the labels of all panels, and for a legend above or below them."""
    height = figure.bbox.height
    legends = [legend.get_window_extent() for legend in figure.legends]
    bottom = max((box.y1 for box in legends if box.y0 < height / 2), default=0.0)
    top = min((box.y0 for box in legends if box.y0 >= height / 2), default=height)
    # Without a legend no rectangle, for which all is measured twice.
    figure.tight_layout(pad=PAD, rect=(0, bottom / height, 1, top / height) if legends else None)
    figure.set_layout_engine(None)  # for what is left of one each file would be drawn twice
