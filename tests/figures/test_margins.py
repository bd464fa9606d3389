"""Room for labels and legends: no text is cut off, and none lies on another part of the picture."""

from typing import Literal

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from routerbench.figures.margins import legend_room, set_margins
from routerbench.figures.panels import panel_title, panels
from routerbench.figures.style import drawing

LABEL = "a_name_that_is_longer_than_most_of"


def is_whole(figure: Figure) -> bool:
    """Whether the panels and legends lie in the figure with all their texts, and the legends on no panel."""
    panels_of = [box for axes in figure.axes if axes.get_visible() and (box := axes.get_tightbbox())]
    legends = [legend.get_window_extent() for legend in figure.legends]
    inside = all(
        figure.bbox.fully_contains(*box.min) and figure.bbox.fully_contains(*box.max)
        for box in (*panels_of, *legends)
    )
    return inside and not any(legend.overlaps(box) for legend in legends for box in panels_of)


@pytest.mark.parametrize("place", ["upper center", "lower left", None])
@pytest.mark.parametrize("count", [1, 4, 6])
def test_nothing_is_cut_off_or_lies_on_another(
    count: int, place: Literal["upper center", "lower left"] | None
) -> None:
    with drawing():
        figure, grid = panels(count, 2.2, "a label", "another label", share=False)
        for axes in grid:
            axes.plot([0, 50], [0, 100])
            axes.set_title(panel_title(LABEL), size=8)
        if count == 1:
            grid[0].set_yticks([50], [LABEL])
        if place is not None:
            handles = [Line2D([], [], label=LABEL) for _ in range(5)]
            columns, _ = legend_room([LABEL] * 5)
            figure.legend(handles=handles, loc=place, ncols=columns, fontsize=8, frameon=False)
        set_margins(figure)
    assert is_whole(figure)


def test_a_legend_has_the_columns_that_its_longest_name_leaves() -> None:
    # 6 inches, of which a name takes 0.066 a letter and 0.55 beside: 2.2 of them fit, then 9.1.
    assert legend_room(["a" * 33] * 5) == (2, pytest.approx(3 * 0.18))
    assert legend_room(["a"] * 5) == (9, pytest.approx(0.18))
    assert legend_room(["a" * 200]) == (1, pytest.approx(0.18))
