"""A picture as files, and its numbers beside them as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from routerbench.figures.picture import Picture
from routerbench.figures.style import PAPER, drawing
from routerbench.records import make_folder, replaced, write_text

# What is asked of matplotlib for each further format: letters that publishers take, and no date.
FORMATS: dict[str, dict[str, Any]] = {"png": {"dpi": 150}, "pdf": {"metadata": {"CreationDate": None}}}
LETTERS: dict[Any, Any] = {"pdf.fonttype": 42}


def save(
    folder: Path,
    name: str,
    picture: Picture,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    formats: Sequence[str] = (),
) -> None:
    """Write `<name>.svg` and `<name>.csv`, the same bytes for the same numbers, and these of `FORMATS`.

    Raises UnwritableError.
    """
    make_folder(folder)
    write_text(folder / f"{name}.svg", picture.drawn.decode())
    for one in formats:
        with replaced(folder / f"{name}.{one}") as path, drawing(), rc_context(LETTERS):
            picture.figure.savefig(path, format=one, facecolor=PAPER, **FORMATS[one])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(folder / f"{name}.csv", text.getvalue())
