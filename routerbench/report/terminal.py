"""Boards -> the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from routerbench.report.boards import REFERENCES, Board, marks
from routerbench.report.columns import (
    LEGEND,
    PLUS_MINUS,
    Column,
    cost_columns,
    printable,
    quality_columns,
    router_column,
)

LABEL_WIDTH = 22  # holds sinkhorn_expert_choice; longer labels take more lines


def print_boards(boards: Sequence[Board], remarks: Sequence[str], console: Console) -> None:
    """Each board as one table, or as several (first quality, then cost) on a narrow console."""
    for board in boards:
        _print_lines([board.title], "bold", console)
        _print_lines([board.subtitle], "dim", console)
        for table in _tables(board, [*quality_columns(), *cost_columns(board)], console):
            console.print(table)
            console.print()
        if board.notes:
            _print_lines(board.notes, "yellow", console)
            console.print()
    _print_lines(LEGEND, "dim", console)
    _print_lines(remarks, "yellow", console)


def _print_lines(lines: Sequence[str], style: str, console: Console) -> None:
    for line in lines:
        console.print(Text(printable(line), style))


def _tables(board: Board, columns: Sequence[Column], console: Console) -> list[Table]:
    """One table, or halves of it down to where no number and no word of a label is broken."""
    table = _table(board, columns)
    least = Measurement.get(console, console.options.update(max_width=10_000), table).minimum
    if least <= console.width or len(columns) == 1:
        return [table]
    half = len(columns) // 2
    return [*_tables(board, columns[:half], console), *_tables(board, columns[half:], console)]


def _table(board: Board, columns: Sequence[Column]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column(router_column(board).short, overflow="fold", max_width=LABEL_WIDTH)
    labels = [router_column(board).text(row) for row in board.rows]
    texts = []
    for column in columns:
        first, second, *lines = _block(column, board)
        table.add_column(f"{first}\n{second}", no_wrap=True, min_width=len(first))
        texts.append(lines)
    last_reference = sum(row.router in REFERENCES for row in board.rows) - 1
    for number, (row, *cells) in enumerate(zip(board.rows, labels, *texts, strict=True)):
        style = "yellow" if marks(row, board) or not row.done else ""
        # Text, not str: rich would read [red] in a name as a colour.
        table.add_row(*map(Text, cells), style=style, end_section=number == last_reference)
    return table


def _block(column: Column, board: Board) -> list[str]:
    """The two lines of the header and the texts of all rows, as lines of one width.

    Padded here and not by rich, which drops the space that keeps a mean without interval below the others.
    """
    lines = [*column.short.split("\n"), *_aligned([column.text(row) for row in board.rows])]
    return [line.rjust(max(map(len, lines))) for line in lines]


def _aligned(texts: Sequence[str]) -> list[str]:
    """The texts of a column with their ± below one another, whether or not a row has an interval."""
    width = max((len(text.partition(PLUS_MINUS)[2]) for text in texts), default=0)
    return [_padded(text, width) for text in texts] if width else list(texts)


def _padded(text: str, width: int) -> str:
    mean, sign, half = text.partition(PLUS_MINUS)
    return mean + (sign or " " * len(PLUS_MINUS)) + half.rjust(width)
