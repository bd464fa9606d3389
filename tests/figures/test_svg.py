import re
from xml.etree import ElementTree

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

from routerbench.figures.picture import Picture
from routerbench.figures.style import ACCENT, INK, drawing, short
from routerbench.figures.svg import svg


def picture(title: str = "a title", label: str = "a label") -> Picture:
    """A line with markers, an image and texts."""
    with drawing():
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([1, 2, 3], [1, 3, 2], "o-", color=ACCENT)
        axes.imshow(np.full((2, 2, 4), 0.5), extent=(1, 2, 1, 2), interpolation="none")
        axes.set_title(label)
    return Picture(title, "what it shows", figure)


def test_it_says_what_it_is_to_those_who_do_not_see_it() -> None:
    root = ElementTree.fromstring(svg(picture(), "p1"))
    assert [root.tag, root.get("role"), root.get("viewBox")] == ["svg", "img", "0 0 216 144"]
    words = {str(child.get("id")): child.text for child in root if child.tag in ("title", "desc")}
    assert words == {"p1-title": "a title", "p1-desc": "what it shows"}
    assert [root.get("aria-labelledby"), root.get("aria-describedby")] == list(words)


def test_the_same_picture_is_the_same_text() -> None:
    assert svg(picture(), "p1") == svg(picture(), "p1")
    once = picture()
    assert svg(once, "p1") == svg(once, "p1")


def test_two_pictures_share_no_id_and_every_reference_is_to_the_own_picture() -> None:
    first, second = svg(picture(), "p1"), svg(picture(), "p2")
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    for text, own in zip((first, second), ids, strict=True):
        references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        assert references
        assert references <= own


def test_no_style_that_the_policy_of_the_page_would_refuse() -> None:
    text = svg(picture(), "p1")
    assert not re.search(r"style|http|font-family|metadata|<!", text)


def test_colours_are_those_of_the_page() -> None:
    text = svg(picture(), "p1")
    assert 'stroke="var(--accent)"' in text
    assert 'fill="var(--ink)"' in text
    assert ACCENT not in text
    assert INK not in text


def test_colours_that_are_not_the_pages_stay_as_they_are() -> None:
    with drawing():
        figure = Figure(figsize=(3, 2))
        figure.subplots().plot([1, 2, 3], "s-", color="#0072b2", markerfacecolor="#d55e00")
    text = svg(Picture("a title", "what it shows", figure), "picture-2-1")
    assert 'stroke="#0072b2"' in text
    assert 'fill="#d55e00"' in text
    assert not re.search(r'(?:fill|stroke)="#picture', text)


def test_names_are_shown_and_not_read() -> None:
    nasty = "<b>&amp; $x^2$ _y_ \x1b[31m\udc80 漢"
    root = ElementTree.fromstring(svg(picture(nasty, short(nasty)), "p1"))
    shown = "<b>&amp; $x^2$ _y_ \\x1b[31m\\udc80 漢"
    assert root[0].text == shown
    assert short(nasty) in [text.text for text in root.iter("text")]


def test_a_long_name_loses_its_middle() -> None:
    assert short("soft") == "soft"
    assert short("x" * 34) == "x" * 34
    assert short("a" * 50 + "b" * 50) == "a" * 17 + "…" + "b" * 16


def test_drawing_leaves_the_settings_of_others_alone() -> None:
    before = dict(rcParams)
    svg(picture(), "p1")
    assert dict(rcParams) == before
