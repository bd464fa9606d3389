"""What a board's rows do at test time, as tables: at other capacities, and without their routers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from routerbench.report.boards.board import Board
from routerbench.report.boards.evaluated import estimate_at, modes_of
from routerbench.report.boards.modes import DROPLESS, TRAINED, read_mode, read_replacement
from routerbench.report.boards.rows import Row
from routerbench.report.tables.table import (
    Cell,
    Column,
    Line,
    Table,
    estimate_cell,
    mean_cell,
    significant,
)
from routerbench.stats import Estimate

CAPACITY, ROUTERS = "capacity", "routers"
LOST = "top1_lost_points"
MOST_LINES, MOST_COLUMNS = 40, 10
NAME = Column("row", "\nrow")
HEADERS = {TRAINED: ("as trained", "as\ntrained"), DROPLESS: ("dropless", "\ndropless")}
ACCURACY = (
    "top-1 % of the trained models at the capacity factors of the columns, dropless: with a slot for every "
    "token; mean over seeds with its 95 % t-interval"
)
FLOPS = (
    "{unit} that the same evaluations executed of an image, by the slots that were filled; mean over seeds"
)
REPLACED = (
    "points of top-1 lost where the routers of all MoE layers are replaced after training; mean over seeds "
    "with its 95 % t-interval"
)


@dataclass(frozen=True, eq=False)
class _Line:
    """A row under one choice of all but its slots; the names of its modes by their slots."""

    row: Row
    rest: str
    modes: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{self.row.label} · {self.rest}" if self.rest else self.row.label

    def estimate(self, slots: str, name: str) -> Estimate:
        """The mean over seeds of this number, nan where it was not measured with these slots."""
        return estimate_at(self.row, CAPACITY, [self.modes.get(slots, "")], name)


def test_time_tables(board: Board) -> list[Table]:
    """Accuracy and executed FLOPs by capacity, and what is lost by other routers; without what no run has."""
    lines = [line for row in board.rows for line in _capacity_lines(row)]
    return [*_capacity_tables(lines), *_replaced_tables(board.rows)]


def replacements_of(row: Row) -> dict[str, list[str]]:
    """What stood in for the routers of all its layers at once, with the modes in which it did."""
    found: dict[str, list[str]] = {}
    for mode in modes_of(row, ROUTERS):
        replaced = read_replacement(mode)
        if replaced is not None and replaced.layer is None and estimate_at(row, ROUTERS, [mode], LOST).n:
            found.setdefault(replaced.name, []).append(mode)
    return found


def _capacity_lines(row: Row) -> list[_Line]:
    by_rest: dict[str, dict[str, str]] = {}
    for name in modes_of(row, CAPACITY):
        if (mode := read_mode(name)) is not None:
            by_rest.setdefault(mode.rest, {})[mode.slots] = name
    return [_Line(row, rest, by_rest[rest]) for rest in sorted(by_rest)]


def _capacity_tables(lines: Sequence[_Line]) -> list[Table]:
    modes = {mode for line in lines for name in line.modes.values() if (mode := read_mode(name))}
    slots = list(dict.fromkeys(mode.slots for mode in sorted(modes, key=lambda mode: mode.order)))
    if not slots:
        return []
    columns = {one: Column(*HEADERS.get(one, (f"at {one}", f"at\n{one}"))) for one in slots}
    executed = {
        (line, one): line.estimate(one, "executed_flops_per_image").mean for line in lines for one in slots
    }
    unit, scale = ("GFLOPs", 1e9) if any(flops >= 1e9 for flops in executed.values()) else ("MFLOPs", 1e6)

    def accuracy(line: _Line, one: str) -> Cell:
        return estimate_cell(line.estimate(one, "top1"))

    def flops(line: _Line, one: str) -> Cell:
        return Cell(significant(executed[line, one] / scale), executed[line, one])

    return [
        _table("Accuracy at test time", ACCURACY, lines, columns, accuracy),
        _table("FLOPs at test time", FLOPS.format(unit=unit), lines, columns, flops),
    ]


def _replaced_tables(rows: Sequence[Row]) -> list[Table]:
    replaced = {row.label: own for row in rows if (own := replacements_of(row))}
    lines = [_Line(row, "", {}) for row in rows if row.label in replaced]
    names = dict.fromkeys(name for own in replaced.values() for name in own)

    def lost(line: _Line, name: str) -> Cell:
        modes = replaced[line.row.label].get(name, [])
        return mean_cell(estimate_at(line.row, ROUTERS, modes, LOST), 1.0, 2, "+")

    columns = {name: Column(name, f"\n{name}") for name in names}
    return [_table("Does the router matter?", REPLACED, lines, columns, lost)] if lines else []


def _table(
    name: str,
    caption: str,
    lines: Sequence[_Line],
    columns: Mapping[str, Column],
    cell: Callable[[_Line, str], Cell],
) -> Table:
    """As many lines and columns as a board has room for, and a note of those that are left out."""
    shown, heads = lines[:MOST_LINES], list(columns)[:MOST_COLUMNS]
    cells = [Line([Cell(line.name), *(cell(line, head) for head in heads)]) for line in shown]
    parts = {"lines": (len(shown), len(lines)), "columns": (len(heads), len(columns))}
    cut = [f"the first {first} of {count} {what}" for what, (first, count) in parts.items() if first < count]
    notes = [f"Only {' and '.join(cut)}, as there is no room: the records have them all"] * bool(cut)
    return Table(name, caption, [NAME, *(columns[head] for head in heads)], cells, notes=notes)
