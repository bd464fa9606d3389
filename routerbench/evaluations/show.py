"""What `routerbench eval` prints: a line for each measurement, and a table for each run and study."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from routerbench.evaluations.measurement import Result
from routerbench.evaluations.names import WITHOUT_PICTURES
from routerbench.evaluations.run import Entry
from routerbench.printable import printable

# What says most of each study, the first of it in a line; of others their first numbers.
COLUMNS = {
    "capacity": (
        "top1",
        "points_to_dropless",
        "balanced",
        "executed_flops_per_image",
        "dropped_fraction",
        "ece",
    ),
    "compute": ("slots_right_minus_wrong", "spearman_confidence", "top1", "executed_flops_per_image"),
    "batches": ("sensitivity_points", "changed_fraction", "top1_mean", "top1_ordered"),
    "routers": ("top1_lost_points", "top1", "balanced", "first_choice_agreement", "dropped_fraction"),
}
OTHER_COLUMNS = 6
FRACTIONS = ("top1", "top5", "balanced", "ece", "shots_")
NOTHING = "-"
ZERO = 1e-9  # what is smaller is rounding
WIDE = 160  # letters of a line in a file


def console_for(json: bool) -> Console:
    """Where people read: not in the way of a document, nor wrapped where no terminal is."""
    console = Console(stderr=json)
    return console if console.is_terminal else Console(stderr=json, width=WIDE)


def print_entry(run_id: str, entry: Entry, console: Console) -> None:
    """One line for one measurement."""
    first = next(iter(_columns(entry)), None)
    number = "" if first is None else f"  {_header(first)} {_cell(entry.result, first)}"
    line = f"{run_id}  {entry.study}  {entry.mode}{number}  ({entry.result['origin']['seconds']:.1f} s)"
    console.print(Text(printable(line)), soft_wrap=True)


def print_count(run_id: str, entries: Sequence[Entry], console: Console) -> None:
    """How much of what was asked was in the record already."""
    measured = sum(entry.measured for entry in entries)
    line = f"{run_id}: {len(entries) - measured} there, {measured} measured"
    console.print(Text(printable(line)), soft_wrap=True)


def print_nothing(run_id: str, study: str, reason: str, console: Console) -> None:
    """Why a study asks nothing of a run."""
    console.print(Text(printable(f"{run_id}  {study}  nothing to measure: {reason}")), soft_wrap=True)


def print_tables(run_id: str, entries: Sequence[Entry], folder: str, console: Console) -> None:
    """A table for each study, its modes one below the other, and where pictures are, if there are any."""
    for study, of_study in groupby(entries, lambda entry: entry.study):
        console.print()
        console.print(Text(printable(f"{run_id}  {study}"), "bold"), soft_wrap=True)
        console.print(_table(list(of_study), console))
    if any(entry.study not in WITHOUT_PICTURES for entry in entries):
        console.print(Text(printable(f"pictures and their numbers: {folder}")), soft_wrap=True)


def _table(entries: Sequence[Entry], console: Console) -> Table:
    names = list(dict.fromkeys(name for entry in entries for name in _columns(entry)))
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None)
    table.add_column("mode", overflow="fold")
    for name in names:
        table.add_column(_header(name), justify="right")
    for entry in entries:
        table.add_row(Text(printable(entry.mode)), *(Text(_cell(entry.result, name)) for name in names))
    return table


def _columns(entry: Entry) -> Iterable[str]:
    if entry.study in COLUMNS:
        return [name for name in COLUMNS[entry.study] if name in entry.result]
    numbers = [name for name, value in entry.result.items() if isinstance(value, int | float | None)]
    return [name for name in numbers if not name.endswith(("_low", "_high"))][:OTHER_COLUMNS]


def _header(name: str) -> str:
    unit = " %" if _is_fraction(name) else ""
    return name.removesuffix("_fraction").replace("_", " ") + unit


def _is_fraction(name: str) -> bool:
    of_accuracy = name.startswith(FRACTIONS) and "points" not in name and not name.endswith(("_l2", "_std"))
    return of_accuracy or name.endswith(("_fraction", "agreement"))


def _cell(result: Result, name: str) -> str:
    """The number, with its interval where there is one."""
    low, high = result.get(f"{name}_low"), result.get(f"{name}_high")
    text = _text(name, result.get(name))
    return text if low is None or high is None else f"{text} [{_text(name, low)}, {_text(name, high)}]"


def _text(name: str, value: object) -> str:
    if value is None:
        return NOTHING
    if not isinstance(value, float | int) or isinstance(value, bool):
        return printable(str(value))
    value = 0.0 if abs(value) < ZERO else value
    if _is_fraction(name):
        return f"{100 * value:.2f}"
    if "points" in name:
        return f"{value:.2f}"
    if "flops" in name:
        return f"{value / 1e9:.3g} G" if value >= 1e9 else f"{value / 1e6:.4g} M"
    return f"{value:.4g}"
