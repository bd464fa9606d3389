"""What a sweep has come to, what is left of it, and what that will take."""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from routerbench.compose import Cell, Sweep
from routerbench.config import check
from routerbench.identity import group_id, twin_id
from routerbench.ledger.ledger import STATES, Ledger, Standing, is_left
from routerbench.overview.counted import Counts, load, save
from routerbench.overview.estimate import Expected, Experience, expected

# What is no part of an identity can be wrong though the same configuration has run; but for these.
HARMLESS = ("runtime.results=", "runtime.retry=")


@dataclass(frozen=True)
class Row:
    """The cells that differ by their seed alone."""

    words: tuple[str, ...]
    """Those of the task that are not in all cells of the sweep."""
    group: str
    twin: str
    cells: tuple[Cell, ...]
    standings: tuple[Standing, ...]
    num_left: int
    """Cells that are still to be run, those under way too."""
    device: str | None = None
    """That of this machine, where something is left."""
    expected: Expected | None = None
    """Where something is left that can run."""
    impossible: str | None = None
    """Why it cannot run, where something is left."""

    @property
    def label(self) -> str:
        """What tells it from the others."""
        return " ".join(self.words) or self.group

    @property
    def flops_per_image(self) -> int | float | None:
        """Of a forward pass, by the runs that are over or what is expected of those that are left."""
        if self.expected is not None:
            return self.expected.flops_per_image
        entries = (standing.entry for standing in self.standings)
        return next((one.flops_per_image for one in entries if one and one.flops_per_image is not None), None)

    @property
    def seeds(self) -> dict[str, list[int]]:
        """The seeds in each state that has any."""
        found = [
            (standing.state, cell.settings["seed"])
            for cell, standing in zip(self.cells, self.standings, strict=True)
        ]
        return {state: seeds for state in STATES if (seeds := [seed for at, seed in found if at == state])}


@dataclass(frozen=True)
class Plan:
    """A sweep held against the ledger."""

    results: Path
    rows: list[Row]
    damaged: tuple[Path, ...]
    elsewhere: tuple[str, ...]
    """Other devices, whose seconds say nothing of this one."""

    @cached_property
    def counts(self) -> Counter[str]:
        """Cells by state."""
        return Counter(standing.state for row in self.rows for standing in row.standings)

    @property
    def left(self) -> list[Row]:
        """The rows with cells that are still to be run, and can be."""
        return [row for row in self.rows if row.num_left and row.impossible is None]

    def total(self, values: Iterable[int | float | None]) -> tuple[float, int]:
        """The sum over all runs that are left of a cost per run given for each row, and how many runs have no
        estimate.
        """
        pairs = list(zip(self.left, values, strict=True))
        known = math.fsum(row.num_left * value for row, value in pairs if value is not None)
        return known, sum(row.num_left for row, value in pairs if value is None)


def results_of(sweep: Sweep) -> Path:
    """The folder of all its runs; raises ValueError where they are to go to several, or nobody knows them."""
    if not sweep.cells:
        sweeper = sweep.hydra.hydra.runtime.choices["hydra/sweeper"]
        raise ValueError(
            f"hydra/sweeper={sweeper} chooses its cells as it goes: give values, and leave it out"
        )
    folders = list(dict.fromkeys(str(config.runtime.results) for config in sweep.configs))
    if len(folders) > 1:
        raise ValueError(f"runtime.results={','.join(folders)}: give one folder, whose ledger tells")
    return Path(folders[0])


def make_plan(sweep: Sweep, ledger: Ledger) -> Plan:
    """The cells by configuration, each that is left checked and its cost estimated."""
    rows = _rows(sweep.cells, ledger)
    earlier = _experience({row.twin for row in rows}, ledger)
    counts = load(ledger.results)
    before = copy.deepcopy(counts)
    told = [_told(row, earlier[row.twin], counts) if row.num_left else row for row in rows]
    if counts != before:
        save(ledger.results, counts)
    here = {row.device for row in told if row.device is not None}
    devices = {device for one in earlier.values() for device, _ in one.seconds if device is not None}
    return Plan(ledger.results, told, ledger.damaged, tuple(sorted(devices - here)) if here else ())


def _rows(cells: Sequence[Cell], ledger: Ledger) -> list[Row]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(group_id(cell.settings), []).append(cell)
    shared = set(cells[0].words).intersection(*(cell.words for cell in cells))
    return [_row(group, same, shared, ledger) for group, same in groups.items()]


def _row(group: str, cells: list[Cell], shared: set[str], ledger: Ledger) -> Row:
    standings = tuple(ledger.standing(cell.run_id) for cell in cells)
    left = [
        is_left(standing.state, cell.config.runtime.retry)
        for cell, standing in zip(cells, standings, strict=True)
    ]
    own = tuple(word for word in cells[0].words if word not in shared and not word.startswith("seed="))
    return Row(own, group, twin_id(cells[0].settings), tuple(cells), standings, sum(left))


def _experience(twins: set[str], ledger: Ledger) -> dict[str, Experience]:
    earlier = {twin: Experience() for twin in twins}
    for entry in ledger.entries.values():
        if entry.twin in earlier and entry.status == "done":
            earlier[entry.twin].add(entry)
    return earlier


def _told(row: Row, earlier: Experience, counts: Counts) -> Row:
    """With what one of its runs will take, or why there can be none."""
    config = row.cells[0].config
    try:
        for cell in row.cells:
            check(cell.config)
        device = counts.device(config)
        size = None if _has_run(row, earlier) else counts.size(config, device)
    except ValueError as error:
        return replace(row, impossible=str(error))
    num_processes = math.prod(config.parallel.values())
    return replace(row, device=device, expected=expected(row.group, size, device, num_processes, earlier))


def _has_run(row: Row, earlier: Experience) -> bool:
    """Whether nothing of it is new to the program but a seed."""
    words = [word for cell in row.cells for word in cell.words if not word.startswith(HARMLESS)]
    unusual = any(word.startswith(("runtime.", "parallel.")) for word in words)
    return earlier.recorded(row.group) is not None and not unusual
