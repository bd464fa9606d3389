"""A picture as files: SVG and PNG, and its numbers beside them as CSV."""

import csv
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib import rc_context

from routerbench.figures.picture import Picture
from routerbench.figures.style import PAPER
from routerbench.records import make_folder, replaced, write_text

DOTS_PER_INCH = 150


def save(
    folder: Path, name: str, picture: Picture, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write `<name>.svg`, `<name>.png` and `<name>.csv`, the same bytes for the same numbers.

    Raises UnwritableError.
    """
    make_folder(folder)
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are boxes in the PNG; who shows the SVG has them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        with replaced(folder / f"{name}.svg") as path:
            picture.figure.savefig(path, format="svg", facecolor=PAPER, metadata={"Date": None})
        with replaced(folder / f"{name}.png") as path:
            picture.figure.savefig(path, format="png", facecolor=PAPER, dpi=DOTS_PER_INCH)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(folder / f"{name}.csv", text.getvalue())
