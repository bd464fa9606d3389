"""What a command asks for: configurations, each of them a cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from routerbench.identity import run_id


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep."""

    words: tuple[str, ...]
    """Of the task, as a launcher takes them."""
    varied: str
    """Those of them in which the cells of the sweep differ."""
    config: DictConfig
    settings: dict[str, Any]
    """Its identity."""

    @cached_property
    def run_id(self) -> str:
        """The name of its run."""
        return run_id(self.settings)


@dataclass(frozen=True)
class Sweep:
    """All that a command asks for."""

    cells: list[Cell]
    """Each run once, in the order of the words."""
    hydra: DictConfig
    """The first cell's configuration with Hydra's own node, of which a launcher is made."""
    multirun: bool

    @property
    def configs(self) -> list[DictConfig]:
        """What each cell runs."""
        return [cell.config for cell in self.cells]

    def name_of(self, cell: Cell) -> str:
        """What is said of a cell among others, by its number from 1; nothing of one alone."""
        return name(self.cells.index(cell) + 1, len(self.cells), cell.varied)


def name(number: int, total: int, varied: str) -> str:
    """What is said of a cell among others; nothing of one alone."""
    return f"cell {number} of {total} ({varied})" if total > 1 else ""


def varied(words: Sequence[str], shared: set[str]) -> str:
    """The words of a cell that not all cells have."""
    return " ".join(word for word in words if word not in shared)
