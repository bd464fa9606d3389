"""Colours and marks that tell configurations apart, to the colour-blind and in black and white too."""

from collections.abc import Mapping
from dataclasses import dataclass

from routerbench.figures.marks import COLOURS, LINES, SHAPES
from routerbench.figures.style import INK
from routerbench.report.boards.board import REFERENCES


@dataclass(frozen=True)
class Mark:
    """How one configuration is drawn."""

    colour: str
    fill: str
    shape: str
    line: str


def marks_of(routers: Mapping[str, str]) -> dict[str, Mark]:
    """A mark for each configuration, named with its router: references first, hollow and in ink."""
    references = [name for router in REFERENCES for name, own in routers.items() if own == router]
    others = [name for name in routers if name not in references]
    marks = {name: _mark(INK, "none", number) for number, name in enumerate(references)}
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(others))]
    named = enumerate(zip(others, colours, strict=True))
    return marks | {name: _mark(colour, colour, number) for number, (name, colour) in named}


def _mark(colour: str, fill: str, number: int) -> Mark:
    return Mark(colour, fill, SHAPES[number % len(SHAPES)], LINES[number % len(LINES)])
