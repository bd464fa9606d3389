"""The display of a run while it trains."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def display(
    console: Console, title: str, epochs: int, num_steps: int
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that shows a row: a moving bar on a terminal, a line per evaluation elsewhere."""
    if not console.is_terminal:
        yield lambda row: _print_evaluation(console, title, epochs, row)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[news]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=num_steps, news="")
        latest: dict[str, Any] = {}

        def show(row: dict[str, Any]) -> None:
            latest.update(row)
            progress.update(task, completed=row["step"], news=news(latest, epochs))

        yield show


def news(row: dict[str, Any], epochs: int | str) -> str:
    """What a row of metrics says, in a few words."""
    words = [f"epoch {row['epoch']}/{epochs}"]
    if "train/loss" in row:
        words.append(f"loss {row['train/loss']:.3f}")
    if "test/top1" in row:
        words.append(f"top-1 {row['test/top1']:.1%}")
    return "  ".join(words)


def _print_evaluation(console: Console, title: str, epochs: int, row: dict[str, Any]) -> None:
    if "test/top1" in row:
        console.print(f"{title}  {news(row, epochs)}", markup=False, highlight=False)
