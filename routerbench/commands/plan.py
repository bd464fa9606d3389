"""`routerbench plan`: a sweep held against the ledger, before anything runs."""

import argparse
import json
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from routerbench.commands.cells_of import add_cells, sweep_of
from routerbench.refusal import refuse

if TYPE_CHECKING:
    from routerbench.overview.detect import Comparison
    from routerbench.overview.plan import Plan


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("plan", help="what is done and left of a sweep, and what that will take")
    add_cells(parser, "as those of train -m, +sweep=NAME first")
    parser.add_argument(
        "--detect",
        type=float,
        metavar="POINTS",
        help="also how many seeds tell a difference of so many points of top-1, by the runs that are done",
    )
    parser.add_argument("--all", action="store_true", help="name every run, not the first of each state")
    parser.add_argument("--json", action="store_true", help="everything, to be read by a program")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; 2 where a cell cannot run, or no pilot tells what --detect asks."""
    from rich.console import Console

    from routerbench.ledger.ledger import read_ledger
    from routerbench.overview.plan import make_plan, results_of
    from routerbench.overview.plan_json import as_json
    from routerbench.overview.show_plan import show

    _check(arguments)
    sweep = sweep_of(arguments)
    plan = make_plan(sweep, read_ledger(results_of(sweep)))
    found = [] if arguments.detect is None else _comparisons(plan, arguments.detect)
    if arguments.json:
        print(json.dumps(as_json(plan, found), indent=1))
    else:
        show(plan, sweep, arguments.all, Console())
        for line in _told(found, arguments.detect):
            print(line)
    impossible = sum(row.impossible is not None for row in plan.rows)
    if impossible:
        return refuse(f"{impossible} of {len(plan.rows)} configurations cannot run")
    if arguments.detect is not None and all(one.spread is None for one in found):
        return refuse(_pilot(arguments, plan))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    from routerbench.checks import check_positive

    if arguments.detect is not None:
        check_positive("detect", arguments.detect)


def _comparisons(plan: "Plan", points: float) -> "list[Comparison]":
    from routerbench.overview.detect import comparisons  # and scipy

    return comparisons(plan.rows, points)


def _told(found: "list[Comparison]", points: float | None) -> Iterator[str]:
    if points is None or not found:
        return
    from routerbench.overview.show_detect import detect_lines

    yield from detect_lines(found, points)


def _pilot(arguments: argparse.Namespace, plan: "Plan") -> str:
    """What to do for want of a pilot."""
    from routerbench.overview.detect import pilot_words

    asked = f"detect={arguments.detect:g}"
    if len(plan.rows) < 2:
        return f"{asked} needs two configurations to compare: this is one"
    config_dir = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    words = shlex.join(["routerbench", "train", "-m", *config_dir, *pilot_words(arguments.words, plan.rows)])
    return f"{asked} needs a pilot, two seeds of two configurations that differ: {words}"
