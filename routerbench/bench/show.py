"""Tables -> the terminal, or the lines between the markers of a Markdown file."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from routerbench.bench.results import Record
from routerbench.bench.tables import Table
from routerbench.report.tables.markdown import escaped

LEGEND = (
    "Medians over rounds; / dense, with its quartiles: the ratio to dense in the same round. "
    "GFLOP/s: executed matrix products over time. GEMM: the plain product of tokens and first matrix, "
    "forward alone. Peak: tensors of forward and backward, gradients included, without parameters and input. "
    "Limit: the peak of dense plus the gradients of the experts."
)


def origin(results: Record) -> str:
    """Where and how the numbers were measured, in one sentence."""
    source = results["provenance"]
    versions = source["versions"]
    commit = (source["commit"] or "unknown")[:10] + ("+changes" if "+" in (source["commit"] or "") else "")
    return (
        f"{source['device']}; torch {versions['torch']}; {results['clock']}; {results['repeats']} rounds; "
        f"routerbench {versions['routerbench'] or ''}, commit {commit}: {source['command']}"
    )


def print_table(table: Table, console: Console) -> None:
    """One table, with its notes below it."""
    console.print(Text(table.title, "bold"))
    shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    for note in table.notes:
        console.print(Text(note, "yellow"))
    console.print()


def markdown(tables: Sequence[Table], results: Record) -> str:
    """All tables under headings, and where they come from."""
    parts = [f"Measured on {escaped(origin(results))}"]
    for table in tables:
        rows = [[escaped(text) for text in row] for row in (table.columns, *table.rows)]
        rows.insert(1, ["---", *["---:"] * (len(table.columns) - 1)])
        lines = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        parts += [f"### {escaped(table.title)}", lines, *(escaped(note) for note in table.notes)]
    return "\n\n".join(parts) + "\n"
