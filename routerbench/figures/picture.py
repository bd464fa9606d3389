"""A drawing with the words that stand for it."""

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from routerbench.figures.margins import set_margins
from routerbench.figures.style import PAPER, drawing

RENDERING: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "routerbench"}


@dataclass(frozen=True)
class Picture:
    """A figure, its title, and in a sentence or two what it shows, for those who do not see it."""

    title: str
    description: str
    figure: Figure

    @cached_property
    def drawn(self) -> bytes:
        """The SVG, always the same for the same figure; it is drawn once, for the page and for a file."""
        buffer = BytesIO()
        with drawing(), rc_context(RENDERING):
            set_margins(self.figure)
            self.figure.savefig(buffer, format="svg", facecolor=PAPER, metadata={"Date": None})
        return buffer.getvalue()
