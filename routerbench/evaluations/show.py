"""What `routerbench eval` prints: a line for each measurement, and a table for each run and study."""

from collections.abc import Iterable, Sequence
from itertools import groupby, islice

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from routerbench.evaluations.measurement import Result
from routerbench.evaluations.run import Entry
from routerbench.printable import printable

IN_A_LINE, IN_A_TABLE = 4, 7  # numbers of a result, the first of which say most
NOTHING = "-"
WIDE = 160  # letters of a line in a file


def console_for(json: bool) -> Console:
    """Where people read: not in the way of a document, nor wrapped where no terminal is."""
    console = Console(stderr=json)
    return console if console.is_terminal else Console(stderr=json, width=WIDE)


def print_entry(run_id: str, entry: Entry, console: Console) -> None:
    """One line for one measurement."""
    numbers = "  ".join(f"{name} {_text(value)}" for name, value in islice(_told(entry.result), IN_A_LINE))
    line = f"{run_id}  {entry.study}  {entry.mode}  {numbers}  {entry.result['origin']['seconds']:.1f} s"
    console.print(Text(printable(line)), soft_wrap=True)


def print_count(run_id: str, entries: Sequence[Entry], console: Console) -> None:
    """How much of what was asked was in the record already."""
    measured = sum(entry.measured for entry in entries)
    line = f"{run_id}: {len(entries) - measured} there, {measured} measured"
    console.print(Text(printable(line)), soft_wrap=True)


def print_tables(run_id: str, entries: Sequence[Entry], console: Console) -> None:
    """A table for each study, its modes one below the other."""
    for study, of_study in groupby(entries, lambda entry: entry.study):
        console.print()
        console.print(Text(printable(f"{run_id}  {study}"), "bold"), soft_wrap=True)
        console.print(_table(list(of_study), console))


def _table(entries: Sequence[Entry], console: Console) -> Table:
    names = [name for name, _ in islice(_told(entries[0].result), IN_A_TABLE)]
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None)
    table.add_column("mode", overflow="fold")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for entry in entries:
        table.add_row(Text(printable(entry.mode)), *(Text(_text(entry.result.get(name))) for name in names))
    return table


def _told(result: Result) -> Iterable[tuple[str, object]]:
    return ((name, value) for name, value in result.items() if isinstance(value, str | int | float | None))


def _text(value: object) -> str:
    if value is None:
        return NOTHING
    if not isinstance(value, float | int) or isinstance(value, bool):
        return printable(str(value))
    return f"{value / 1e6:.4g} M" if abs(value) >= 1e6 else f"{value:.4g}"
