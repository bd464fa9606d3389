"""What became of the cells of a sweep, by the ledger."""

from collections.abc import Sequence
from pathlib import Path

from routerbench.compose import Cell
from routerbench.ledger.ledger import Standing, is_left, read_ledger


def standings(cells: Sequence[Cell]) -> list[Standing]:
    """How each cell stands now."""
    folders = {str(cell.config.runtime.results) for cell in cells}
    ledgers = {folder: read_ledger(Path(folder)) for folder in folders}
    return [ledgers[str(cell.config.runtime.results)].standing(cell.run_id) for cell in cells]


def left_of(cells: Sequence[Cell], found: Sequence[Standing]) -> list[Cell]:
    """Of cells that stand so those that are still to be run, in the same order."""
    return [
        cell
        for cell, standing in zip(cells, found, strict=True)
        if is_left(standing.state, cell.config.runtime.retry)
    ]
