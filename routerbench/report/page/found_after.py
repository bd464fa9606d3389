"""What was found of a run after training -> a table for each study."""

from collections.abc import Mapping

from routerbench.evaluations.found import Numbers
from routerbench.report.page.parts import Study
from routerbench.report.runs.run import Run
from routerbench.report.tables.table import NOTHING

MOST_MODES, MOST_COLUMNS = 48, 12
MOST_STUDIES, LETTERS = 12, 60
ENDS = ("_low", "_high")  # of the interval of what stands before them


def studies_of(run: Run) -> list[Study]:
    """The studies in the order of the record, each within what a page can hold."""
    found = run.get("evaluations", {})
    return [_study(name, modes) for name, modes in list(found.items())[:MOST_STUDIES]]


def _study(name: str, modes: Mapping[str, Numbers]) -> Study:
    """A line for each mode, and for what a mode says of single layers (`blocks.5/class`) one for each."""
    lines: dict[str, dict[str, float]] = {}
    for mode, numbers in modes.items():
        for path, value in numbers.items():
            part, _, column = path.rpartition("/")
            lines.setdefault(f"{mode} {part}".rstrip(), {})[column] = value
    columns = list(
        dict.fromkeys(column for line in lines.values() for column in line if not _is_end(column, line))
    )
    shown = list(lines.items())[:MOST_MODES]
    heads = columns[:MOST_COLUMNS]
    texts = [(_cut(mode), [_text(line, column) for column in heads]) for mode, line in shown]
    return Study(
        _cut(name),
        [_cut(head) for head in heads],
        texts,
        _left_out(len(lines) - len(shown), len(columns) - len(heads)),
    )


def _is_end(column: str, line: Numbers) -> bool:
    """Whether a number is an end of the interval of another one of the same line."""
    return any(column.endswith(end) and column.removesuffix(end) in line for end in ENDS)


def _text(line: Numbers, column: str) -> str:
    """To four digits, with the interval where there is one."""
    if column not in line:
        return NOTHING
    text = f"{line[column]:.4g}"
    ends = [line[column + end] for end in ENDS if column + end in line]
    return f"{text} ({ends[0]:.4g} to {ends[1]:.4g})" if len(ends) == len(ENDS) else text


def _left_out(modes: int, columns: int) -> str:
    parts = [
        f"{count} {what}" for count, what in ((modes, "modes"), (columns, "numbers of each")) if count > 0
    ]
    return f"Left out: {' and '.join(parts)}; the record has them." if parts else ""


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"
