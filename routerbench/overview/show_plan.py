"""A plan in words."""

from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from routerbench.compose import Sweep
from routerbench.overview.estimate import Estimate
from routerbench.overview.plan import Plan, Row
from routerbench.overview.units import duration, in_thousands, numbers
from routerbench.printable import printable
from routerbench.sweep.named import bounded, counts_line, named_lines

NONE = "-"
HEADS = ("FLOPs per\nimage", "FLOPs\nleft", "time\nleft", "disk\nleft")


def show(plan: Plan, sweep: Sweep, everything: bool, console: Console) -> None:
    """Print what has become of the cells and what is left of them."""
    console.print(table(plan))
    for line in lines(plan, sweep, everything):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def table(plan: Plan) -> Table:
    """A line for each configuration."""
    shown = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    shown.add_column("configuration", overflow="fold")
    shown.add_column("seeds", overflow="fold", min_width=10)
    for head in HEADS:
        shown.add_column(head, justify="right", no_wrap=True)
    for row in plan.rows:
        seeds = ", ".join(f"{numbers(seeds)} {state}" for state, seeds in row.seeds.items())
        shown.add_row(Text(printable(row.label)), Text(seeds), *_costs(row))
    return shown


def lines(plan: Plan, sweep: Sweep, everything: bool) -> Iterator[str]:
    """What is said below the table."""
    yield from map(printable, _lines(plan, sweep, everything))


def _lines(plan: Plan, sweep: Sweep, everything: bool) -> Iterator[str]:
    num_cells = sum(plan.counts.values())
    yield f"{num_cells} cells of {len(plan.rows)} configurations: {counts_line(plan.counts)}"
    if plan.left:
        yield from _left(plan)
    runs = [
        (cell.run_id, standing)
        for row in plan.rows
        for cell, standing in zip(row.cells, row.standings, strict=True)
    ]
    yield from named_lines(plan.results, runs, everything)
    damaged = [f"damaged: {path} is no record of a run" for path in plan.damaged]
    yield from damaged if everything else bounded(damaged)
    impossible = [_impossible(row, sweep) for row in plan.rows if row.impossible is not None]
    yield from impossible if everything else bounded(impossible)


def _left(plan: Plan) -> Iterator[str]:
    """What the runs that are left will take, and what the figures rest on."""
    told = [row.expected for row in plan.left if row.expected is not None]
    devices = " and ".join(sorted({row.device for row in plan.left if row.device is not None}))
    yield f"left: {sum(row.num_left for row in plan.left)} runs"
    flops = [one.training_flops for one in told]
    yield f"  FLOPs, three forward passes for each image trained on: {_total(plan, flops, in_thousands)}"
    seconds = [_value(one.seconds) for one in told]
    yield f"  time to train one run after the other on {devices}: {_total(plan, seconds, duration)}"
    disk = [_value(one.disk_bytes) for one in told]
    yield f"  disk: {_total(plan, disk, lambda value: f'{in_thousands(value)}B')}"
    if any(_by_size(one) for each in told for one in (each.seconds, each.disk_bytes)):
        yield "  ~ by its size, from other configurations of the same backbone, data and epochs"
    if any(each.counted for each in told):
        yield "  * counted on a model with two classes"
    if plan.elsewhere:
        yield f"  not used for time, being of other devices: runs on {'; '.join(plan.elsewhere)}"


def _total(plan: Plan, values: Iterable[int | float | None], text: Callable[[int | float], str]) -> str:
    known, unknown = plan.total(values)
    if not unknown:
        return text(known)
    if unknown == sum(row.num_left for row in plan.left):
        return "no earlier record tells"
    return f"{text(known)} without {unknown} runs of which no earlier record tells"


def _costs(row: Row) -> tuple[str, str, str, str]:
    """By HEADS; those of what is left over all its runs."""
    told, flops = row.expected, row.flops_per_image
    per_image = NONE if flops is None else in_thousands(flops) + ("*" if told and told.counted else "")
    if told is None:
        return per_image, "", "", ""
    in_all = NONE if told.training_flops is None else in_thousands(row.num_left * told.training_flops)
    seconds = _estimated(told.seconds, lambda value: duration(row.num_left * value))
    return (
        per_image,
        in_all,
        seconds,
        _estimated(told.disk_bytes, lambda v: f"{in_thousands(row.num_left * v)}B"),
    )


def _estimated(estimate: Estimate | None, text: Callable[[int | float], str]) -> str:
    return NONE if estimate is None else "~" * _by_size(estimate) + text(estimate.value)


def _by_size(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.basis == "twins"


def _value(estimate: Estimate | None) -> int | float | None:
    return None if estimate is None else estimate.value


def _impossible(row: Row, sweep: Sweep) -> str:
    """By the first of its cells, as `train` refuses it."""
    name, others = sweep.name_of(row.cells[0]), " and its other seeds" if len(row.cells) > 1 else ""
    return f"cannot run: {name}{others}: {row.impossible}" if name else f"cannot run: {row.impossible}"
