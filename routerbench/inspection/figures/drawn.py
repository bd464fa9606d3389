"""A picture as it is saved: with a name, and its numbers in a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from routerbench.figures.picture import Picture
from routerbench.figures.saved import save

Row = tuple[str | int | float, ...]


@dataclass(frozen=True)
class Drawn:
    """A picture, the name of its files, and the numbers that it shows."""

    name: str
    picture: Picture
    columns: tuple[str, ...]
    rows: Sequence[Row]

    def save(self, folder: Path, formats: Sequence[str] = ()) -> None:
        """Write the picture as SVG and in these formats, its numbers as CSV; raises UnwritableError."""
        save(folder, self.name, self.picture, self.columns, self.rows, formats)
