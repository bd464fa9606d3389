"""Sections -> Markdown."""

import re
from collections.abc import Sequence

from routerbench.printable import printable
from routerbench.report.tables.table import Section, Table

# What starts or ends something in Markdown or HTML; an underscore inside a word does neither.
SPECIAL = re.compile(r"[\\`*\[\]<>|&~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown(sections: Sequence[Section], remarks: Sequence[str], heading: str) -> str:
    """All sections with their notes, under headings that begin with `heading` (such as "##")."""
    parts = [part for section in sections for part in _parts(section, heading)]
    parts += ["\n".join(f"- {escaped(line)}" for line in remarks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """The text as Markdown that shows it literally, in a table cell too."""
    # Character references: a backslash before | does nothing where the name has one there already.
    return SPECIAL.sub(lambda match: f"&#{ord(match[0])};", printable(text))


def _parts(section: Section, heading: str) -> list[str]:
    parts = [f"{heading} {escaped(section.title)}"]
    for table in section.tables:
        name = f"{heading}# {escaped(table.name)}" if table.name else ""
        notes = "\\\n".join(escaped(note) for note in table.notes)
        parts += [name, escaped(table.caption), _grid(table), notes]
    return parts


def _grid(table: Table) -> str:
    rows = [[escaped(column.header) for column in table.columns]]
    rows += [["---", *["---:"] * (len(table.columns) - 1)]]
    rows += [[escaped(cell.text) for cell in line.cells] for line in table.lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
