"""Generated lines replace those between the markers of their name, and nothing else."""

import pytest

from routerbench.paste import pasted


def test_lines_replace_what_stands_between_the_markers() -> None:
    document = "# Title\r\n<!-- board:begin -->\nold\nolder\n  <!-- board:end -->\nend, no line end"
    replaced = "# Title\r\n<!-- board:begin -->\nnew\n  <!-- board:end -->\nend, no line end"
    assert pasted(document, "new\n", "board") == replaced
    assert pasted(replaced, "new\n", "board") == replaced


@pytest.mark.parametrize(
    "document",
    [
        "no marker\n",
        "<!-- board:begin -->\n",
        "<!-- board:end -->\n<!-- board:begin -->\n",
        "<!-- board:begin -->\n<!-- board:begin -->\n<!-- board:end -->\n",
        "in a line: <!-- board:begin --> <!-- board:end -->\n",
    ],
)
def test_markers_must_stand_once_in_order(document: str) -> None:
    markers = "<!-- board:begin --> and <!-- board:end -->"
    message = f"^does not hold the lines {markers} once each, in this order: add them$"
    with pytest.raises(ValueError, match=message):
        pasted(document, "new\n", "board")


def test_other_names_are_left_alone() -> None:
    document = "<!-- board:begin -->\n<!-- x:begin -->\nold\n<!-- x:end -->\n<!-- board:end -->\n"
    assert pasted(document, "new\n", "x") == document.replace("old", "new")
