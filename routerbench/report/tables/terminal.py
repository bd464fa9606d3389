"""Sections -> the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from routerbench.printable import printable
from routerbench.report.tables.table import PLUS_MINUS, Column, Section, Table

LABEL_WIDTH = 22  # holds sinkhorn_expert_choice; longer labels take more lines where there is no room


def print_sections(sections: Sequence[Section], remarks: Sequence[str], console: Console) -> None:
    """Each table in one piece, or in several below one another on a narrow console."""
    for section in sections:
        _print_lines([section.title], "bold", console)
        for table in section.tables:
            _print_table(table, console)
    _print_lines(remarks, "dim", console)


def _print_table(table: Table, console: Console) -> None:
    _print_lines([table.name] if table.name else [], "bold", console)
    _print_lines([table.caption] if table.caption else [], "dim", console)
    names = [printable(line.cells[0].text) for line in table.lines]
    blocks = [_block(table, column) for column in range(1, len(table.columns))]
    widest = _widest(table.columns[0], names)
    for part in _parts(blocks, console.width - min(widest, LABEL_WIDTH)):
        width = min(widest, max(LABEL_WIDTH, console.width - _width(part)))
        console.print(_grid(table, part, width))
        console.print()
    if table.notes:
        _print_lines(table.notes, "yellow", console)
        console.print()


def _print_lines(lines: Sequence[str], style: str, console: Console) -> None:
    for line in lines:
        console.print(Text(printable(line), style))


def _widest(column: Column, names: Sequence[str]) -> int:
    return max(map(cell_len, [*column.short.split("\n"), *names]))


def _width(blocks: Sequence[Sequence[str]]) -> int:
    """The width of columns, each with the space before it."""
    return sum(cell_len(block[0]) + 1 for block in blocks)


def _parts(blocks: Sequence[Sequence[str]], width: int) -> list[list[Sequence[str]]]:
    """The columns in as few tables as this width takes, and none of these much wider than the others."""
    widths = [_width([block]) for block in blocks]
    fewest = len(_ends(widths, width))
    ends = next(ends for below in range(width + 1) if len(ends := _ends(widths, below)) == fewest)
    return [list(blocks[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _ends(widths: Sequence[int], width: int) -> list[int]:
    """Where each table ends that takes as many columns as have room, at least one."""
    ends, left = [], width
    for place, needed in enumerate(widths):
        if needed > left and place:
            ends.append(place)
            left = width
        left -= needed
    return [*ends, len(widths)] if widths else []


def _grid(table: Table, blocks: Sequence[Sequence[str]], width: int) -> Grid:
    """The grid of these columns, each given as two lines of header and a text a line."""
    # To rich all numbers of a line are one text: it takes ten times as long with a cell for each.
    first, second, *numbers = (" ".join(texts) for texts in zip(*blocks, strict=True))
    grid = Grid(box=SIMPLE_HEAD, padding=0, show_edge=False)
    grid.add_column(table.columns[0].short, overflow="fold", width=width)
    grid.add_column(f"{first}\n{second}", no_wrap=True, width=cell_len(first))
    for place, (line, texts) in enumerate(zip(table.lines, numbers, strict=True), 1):
        # Text, not str: rich would read [red] in a name as a colour.
        cells = [Text(printable(line.cells[0].text)), Text(texts)]
        style = "yellow" if line.marked else ""
        grid.add_row(*cells, style=style, end_section=place == table.num_references)
    return grid


def _block(table: Table, column: int) -> list[str]:
    """The two lines of the header and the texts of all lines, as texts of one width.

    Padded here and not by rich, which drops the space that keeps a mean without interval below the others.
    """
    header = table.columns[column].short.split("\n")
    lines = [*header, *_aligned([printable(line.cells[column].text) for line in table.lines])]
    width = max(map(len, lines))
    return [line.rjust(width) for line in lines]


def _aligned(texts: Sequence[str]) -> list[str]:
    """The texts of a column with their ± below one another, whether or not a line has an interval."""
    width = max((len(text.partition(PLUS_MINUS)[2]) for text in texts), default=0)
    return [_padded(text, width) for text in texts] if width else list(texts)


def _padded(text: str, width: int) -> str:
    mean, sign, half = text.partition(PLUS_MINUS)
    return mean + (sign or " " * len(PLUS_MINUS)) + half.rjust(width)
