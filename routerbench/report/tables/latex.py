r"""Sections -> LaTeX: tables to \input into a paper."""

import re
from collections import Counter
from collections.abc import Sequence

from routerbench.printable import printable
from routerbench.report.tables.table import NOTHING, Cell, Section, Table

HEAD = r"""% Needs \usepackage{booktabs,graphicx}; for names beyond Latin letters XeLaTeX or LuaLaTeX.
"""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "·": r"\textperiodcentered{}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{char: f"{{{char}}}" for char in "[]*"},  # what a row of a table or an item of a list might begin with
}
SPECIAL_CHARACTER = re.compile("|".join(map(re.escape, SPECIAL)))
LIGATURE = re.compile(r"-(?=-)")
NEGATIVE = re.compile(r"(?<![\w.-])-(?=\d)")
RANGE = re.compile(r"(?<=\d)-(?=\d)")
# Its own width, or that of the line where it has more.
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def latex(sections: Sequence[Section], remarks: Sequence[str]) -> str:
    """Each table as a float with caption and label, its notes below; the remarks as a list at the end."""
    labels: Counter[str] = Counter()
    parts = [HEAD]
    for section in sections:
        for table in section.tables:
            label = _label(section, table)
            labels[label] += 1
            parts.append(_float(section, table, label if labels[label] == 1 else f"{label}-{labels[label]}"))
    items = [rf"\item {escaped(remark)}" for remark in remarks]
    parts += ["\n".join([r"\begin{itemize}", *items, r"\end{itemize}", ""])] if items else []
    return "\n".join(parts)


def escaped(text: str) -> str:
    """The text as LaTeX that prints it literally."""
    spelt = SPECIAL_CHARACTER.sub(lambda match: SPECIAL[match[0]], printable(text))
    return LIGATURE.sub("-{}", spelt)


def _float(section: Section, table: Table, label: str) -> str:
    parts = (section.title, table.name, table.caption)
    caption = ". ".join(escaped(text.rstrip(".")) for text in parts if text)
    notes = [rf"\par\smallskip\footnotesize {escaped(note)}" for note in table.notes]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}.}}",
        rf"\label{{{label}}}",
        FITTED,
        *_tabular(table),
        "}",
        *notes,
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _tabular(table: Table) -> list[str]:
    lines = [_row([_cell(cell) for cell in line.cells]) for line in table.lines]
    if 0 < table.num_references < len(lines):
        lines.insert(table.num_references, r"\midrule")
    return [
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(table.columns) - 1)}@{{}}}}",
        r"\toprule",
        _row([escaped(column.header) for column in table.columns]),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    """A cell with the minus and the range of numbers set as such; what is a name stays as it is."""
    if cell.text == NOTHING:
        return "--"
    text = escaped(cell.text)
    return text if cell.value is None else RANGE.sub("--", NEGATIVE.sub("$-$", text))


def _label(section: Section, table: Table) -> str:
    words = re.findall(r"[a-z0-9]+", f"{section.title} {table.name}".lower())
    return f"tab:{'-'.join(words)}"
