import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context

from routerbench.figures.picture import Picture
from routerbench.figures.svg import svg as svg_of_page
from routerbench.report.figures.published import COLOURS, published_pictures


def svg(picture: Picture) -> bytes:
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "fixed", "svg.fonttype": "none"}):
        picture.figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


@pytest.mark.parametrize("number", [0, 1])
def test_a_picture_is_small_and_always_the_same(number: int) -> None:
    drawn = svg(published_pictures()[number])
    assert drawn == svg(published_pictures()[number])
    assert len(drawn) < 25_000


@pytest.mark.parametrize("number", [0, 1])
def test_a_picture_is_in_the_colours_of_the_page_and_of_its_own_alone(number: int) -> None:
    text = svg_of_page(published_pictures()[number], "p")
    assert len(text) < 25_000
    assert 'fill="var(--ink)"' in text
    # Neither white nor black: both would stand out from a dark page.
    colours = set(re.findall(r'(?:fill|stroke)="(#[^"]*)"', text))
    assert colours <= set(COLOURS.values())
    assert len(colours) >= 3
    # What has no fill at all is drawn in black.
    root = ElementTree.fromstring(text)
    assert all(element.get("fill") for element in root.iter("text"))


def test_every_row_of_table_9_is_a_point() -> None:
    (axes,) = published_pictures()[0].figure.axes
    points = {line.get_label(): np.size(line.get_xdata()) for line in axes.lines}
    assert points == {"dense": 8, "token_choice": 38, "expert_choice": 43, "soft": 18}
    assert axes.get_xscale() == "log"


def test_dense_and_moe_of_table_1_are_joined() -> None:
    (axes,) = published_pictures()[1].figure.axes
    lines = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    # ConvNeXt-S iso: 79.7 % dense, 80.3 % with experts, both 4.3 GFLOPs.
    assert any(line == [[4.3, pytest.approx(79.7)], [4.3, pytest.approx(80.3)]] for line in lines)
    assert sum(len(line) == 2 for line in lines) == 8
