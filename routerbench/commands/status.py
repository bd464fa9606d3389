"""`routerbench status`: how the runs of a folder or of a sweep stand."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from routerbench.commands.cells_of import add_cells, sweep_of

RESULTS = Path("results")
EPILOG = (
    "exit code: 0 all done; 1 some failed, diverged or ran out of memory; 75 none did, and some are not over"
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("status", help="how runs stand, live on a terminal", epilog=EPILOG)
    add_cells(parser, "+sweep=NAME ... for its runs alone, as those of train -m")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of the runs (results)")
    parser.add_argument("--once", action="store_true", help="on a terminal, too, show it and end")
    parser.add_argument("--failed", action="store_true", help="the whole errors of what failed, once")
    parser.add_argument("--all", action="store_true", help="name every run, not the first of each state")
    parser.add_argument("--json", action="store_true", help="everything, to be read by a program, once")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show how they stand; what came of them is the exit code."""
    from rich.console import Console

    from routerbench.ledger.ledger import read_ledger
    from routerbench.overview.show_status import lines, show_live, tracebacks
    from routerbench.overview.status import Status, as_json, status_of

    results, run_ids = _asked(arguments)

    def look() -> Status:
        ledger = read_ledger(results)
        return status_of(ledger, ledger.run_ids() if run_ids is None else run_ids)

    console = Console()
    if console.is_terminal and not (arguments.once or arguments.failed or arguments.json):
        return show_live(look, arguments.all, console).exit_code
    status = look()
    if arguments.json:
        print(json.dumps(as_json(status), indent=1))
        return status.exit_code
    shown = [*lines(status, arguments.all), *(tracebacks(status, arguments.all) if arguments.failed else ())]
    for line in shown:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return status.exit_code


def _asked(arguments: argparse.Namespace) -> tuple[Path, Sequence[str] | None]:
    """The folder, and the runs of a sweep; None for all that are there."""
    if not arguments.words:
        results = arguments.results or RESULTS
        if not results.is_dir():
            raise ValueError(f"results={results} is not a folder: give the one that holds runs/")
        return results, None
    from routerbench.overview.plan import results_of

    sweep = sweep_of(arguments)
    return arguments.results or results_of(sweep), [cell.run_id for cell in sweep.cells]
