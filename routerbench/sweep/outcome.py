"""What became of the cells of a sweep, by the ledger."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from routerbench.compose import Cell
from routerbench.ledger.ledger import STATES, UNFINISHED, Standing, is_left, read_ledger
from routerbench.records import run_folder
from routerbench.signals import EXIT_CODE


def standings(cells: Sequence[Cell]) -> list[Standing]:
    """How each cell stands now."""
    folders = {str(cell.config.runtime.results) for cell in cells}
    ledgers = {folder: read_ledger(Path(folder)) for folder in folders}
    return [ledgers[str(cell.config.runtime.results)].standing(cell.run_id) for cell in cells]


def left_of(cells: Sequence[Cell]) -> list[Cell]:
    """Those that are still to be run, in the same order."""
    return [
        cell
        for cell, standing in zip(cells, standings(cells), strict=True)
        if is_left(standing.state, cell.config.runtime.retry)
    ]


def counts(found: Sequence[Standing]) -> str:
    """How many cells are in each state, in one line."""
    number = Counter(standing.state for standing in found)
    return ", ".join(f"{number[state]} {state}" for state in STATES if number[state])


def not_done(cells: Sequence[Cell], found: Sequence[Standing]) -> Iterator[str]:
    """A line for each cell that is not done: its state, its folder, and what is known of that."""
    for cell, standing in zip(cells, found, strict=True):
        if standing.state != "done":
            line = f"{standing.state}: {run_folder(Path(cell.config.runtime.results), cell.run_id)}"
            yield f"{line}  {standing.detail}" if standing.detail else line


def exit_code(found: Sequence[Standing]) -> int:
    """0: all are done; 1: one came to another end; 75: one is not over."""
    states = {standing.state for standing in found}
    if states - {"done", *UNFINISHED}:
        return 1
    return EXIT_CODE if states & set(UNFINISHED) else 0
