"""What is refused of a sweep before any of it runs."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from routerbench.compose import Cell, Sweep
from routerbench.data import folders
from routerbench.identity import data_id, group_id
from routerbench.sweep.torchrun import num_processes, under_torchrun
from routerbench.timm_import import import_timm


def check_settings(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Hold the settings of cells against each other; raises ValueError, which names the cell."""
    from routerbench.config import check

    for cell in cells:
        ranks = int(os.environ["WORLD_SIZE"]) if under_torchrun() else num_processes(cell.config)
        with _named(sweep, cell):
            check(cell.config, ranks)


def check_parts(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Raise ValueError, which names the cell, for what this machine, the data or the weights do not allow."""
    import_timm()
    from routerbench import parts

    for cell in _first_of_each(cells, lambda cell: group_id(cell.settings)):
        with _named(sweep, cell):
            parts.verify(cell.config)
    for first in _first_of_each(cells, lambda cell: data_id(cell.settings)):
        of_data = [cell for cell in cells if data_id(cell.settings) == data_id(first.settings)]
        with _named(sweep, first):
            data = parts.load_data(first.config)
        for cell in _first_of_each(of_data, lambda cell: group_id(cell.settings)):
            with _named(sweep, cell):
                parts.check_schedule(cell.config, len(data.train))
                parts.load_extra(cell.config, data.class_names)
                parts.load_fewshot(cell.config, data)
                parts.load_linear_probe(cell.config, data)
        for cell in _first_of_each(of_data, lambda cell: str(cell.settings["model"])):
            with _named(sweep, cell):
                parts.load_weights(cell.config, data.num_classes)


def check_paths(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Raise ValueError for what cells read and is not there, and for results that cannot be written.

    Without torch, so that it is said at once.
    """
    for cell in _first_of_each(cells, lambda cell: group_id(cell.settings)):
        with _named(sweep, cell):
            folders.check_paths(cell.config)
    for results in {str(cell.config.runtime.results) for cell in cells}:
        there = next(folder for folder in (Path(results), *Path(results).parents) if folder.exists())
        try:
            TemporaryFile(dir=there).close()
        except OSError as error:
            raise ValueError(f"runtime.results={results} cannot be written: {error.strerror}") from error


def _first_of_each(cells: Sequence[Cell], kind: Callable[[Cell], str]) -> list[Cell]:
    """Of cells that are alike in this the first."""
    return list({kind(cell): cell for cell in reversed(cells)}.values())[::-1]


@contextmanager
def _named(sweep: Sweep, cell: Cell) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        name = sweep.name_of(cell)
        raise ValueError(f"{name}: {error}" if name else str(error)) from error
