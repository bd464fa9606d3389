"""What was found of a run after training -> a table for each study."""

from collections.abc import Mapping

from routerbench.found import Numbers
from routerbench.report.page.parts import Study
from routerbench.report.runs.run import Run
from routerbench.report.tables.table import NOTHING

MOST_MODES, MOST_COLUMNS = 48, 20
MOST_STUDIES, LETTERS = 12, 60
ENDS = ("_low", "_high")  # of the interval of what stands before them


def studies_of(run: Run) -> list[Study]:
    """The studies in the order of the record, each within what a page can hold."""
    found = run.get("evaluations", {})
    return [_study(name, modes) for name, modes in list(found.items())[:MOST_STUDIES]]


def _study(name: str, modes: Mapping[str, Numbers]) -> Study:
    lines = _lines(modes)
    columns = dict.fromkeys(name for line in lines.values() for name in line if not _is_end(name, line))
    heads, shown = list(columns)[:MOST_COLUMNS], list(lines.items())[:MOST_MODES]
    texts = [(_cut(mode), [_text(line, head) for head in heads]) for mode, line in shown]
    left_out = {"modes": len(lines) - len(shown), "numbers of each": len(columns) - len(heads)}
    return Study(_cut(name), [_cut(head) for head in heads], texts, _words(left_out))


def _lines(modes: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """The numbers of each mode, and of each layer of which it tells, as by `blocks.5/class`."""
    lines: dict[str, dict[str, float]] = {}
    for mode, numbers in modes.items():
        lines.setdefault(mode, {})  # before those of its layers
        for path, value in numbers.items():
            layer, _, name = path.rpartition("/")
            lines.setdefault(f"{mode} {layer}".rstrip(), {})[name] = value
    return {mode: line for mode, line in lines.items() if line}


def _is_end(column: str, line: Numbers) -> bool:
    """Whether a number is an end of the interval of another one of the same line."""
    return any(column.endswith(end) and column.removesuffix(end) in line for end in ENDS)


def _text(line: Numbers, column: str) -> str:
    """To four digits, with the interval where there is one."""
    if column not in line:
        return NOTHING
    ends = [_number(line[column + end]) for end in ENDS if column + end in line]
    return f"{_number(line[column])} ({ends[0]} to {ends[1]})" if len(ends) == 2 else _number(line[column])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _words(left_out: Mapping[str, int]) -> str:
    parts = [f"{count} {what}" for what, count in left_out.items() if count]
    return f"Left out: {' and '.join(parts)}; the record has them." if parts else ""


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"
