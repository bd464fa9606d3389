"""Boards -> Markdown."""

import re
from collections.abc import Sequence

from routerbench.report.boards import Board
from routerbench.report.columns import LEGEND, cost_columns, printable, quality_columns, router_column

# What starts or ends something in Markdown or HTML; an underscore inside a word does neither.
SPECIAL = re.compile(r"[\\`*\[\]<>|&~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown(boards: Sequence[Board], remarks: Sequence[str], heading: str) -> str:
    """All boards with their notes, under headings that begin with `heading` (such as "##")."""
    parts = [part for board in boards for part in _parts(board, heading)]
    parts += ["\n".join(f"- {escaped(line)}" for line in [*LEGEND, *remarks])]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """The text as Markdown that shows it literally, in a table cell too."""
    # Character references: a backslash before | does nothing where the name has one there already.
    return SPECIAL.sub(lambda match: f"&#{ord(match[0])};", printable(text))


def _parts(board: Board, heading: str) -> list[str]:
    columns = [router_column(board), *quality_columns(), *cost_columns(board)]
    rows = [[column.header for column in columns]]
    rows += [["---", *["---:"] * (len(columns) - 1)]]
    rows += [[escaped(column.text(row)) for column in columns] for row in board.rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    notes = "\\\n".join(escaped(note) for note in board.notes)
    parts = [f"{heading} {escaped(board.title)}", escaped(board.subtitle), table, notes]
    return [part for part in parts if part]
