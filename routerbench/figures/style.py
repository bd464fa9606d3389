"""How all pictures are drawn, and the colours that the page may change for the dark."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context

from routerbench.printable import printable

INK, MUTED, FAINT, PAPER = "#1b1f24", "#5b6470", "#d4d9df", "#fefefe"
ACCENT, BETTER, WORSE = "#2257c4", "#0f6b46", "#ad2a1f"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    FAINT: "var(--line)",
    PAPER: "var(--paper)",
    ACCENT: "var(--accent)",
    BETTER: "var(--better)",
    WORSE: "var(--worse)",
}
WIDTH_INCHES = 6.0
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Inside it, matplotlib draws in the style of the page."""
    with rc_context(STYLE), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are boxes in a PNG; who shows the SVG has them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def short(label: str, length: int = 34) -> str:
    """A name as a picture shows it: printable, its middle left out where it is longer than `length`."""
    text = printable(label)
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half + 1 :]}"
