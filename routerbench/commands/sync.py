"""`routerbench sync`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from routerbench.printable import some
from routerbench.signals import EXIT_CODE

if TYPE_CHECKING:
    from routerbench.tracking.sync import Found, Outcome


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("sync", help="make W&B equal to the records")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )
    parser.add_argument("--project", default="routerbench", metavar="P", help="default: routerbench")
    parser.add_argument("--entity", metavar="E", help="a team or a user; default: that of the key")
    parser.add_argument("--dry-run", action="store_true", help="send nothing, and name what would be sent")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send what W&B has not; 75 where some of it is left."""
    from routerbench.tracking.sync import look, sync

    if not arguments.results.is_dir():
        raise ValueError(f"--results={arguments.results} is no folder: give that which holds runs/")
    found = look(arguments.results)
    outcome = sync(found.over, arguments.project, arguments.entity, not arguments.dry_run, print)
    print(_counts(found, outcome))
    for path in found.damaged:
        print(f"no record of its folder's run: {path}")
    return _left(outcome, arguments.dry_run)


def _counts(found: "Found", outcome: "Outcome") -> str:
    counts = {
        "equal": outcome.equal,
        "sent": outcome.sent,
        "to be sent": outcome.left,
        "not over, and left to their own mirrors": found.going,
        "damaged": found.damaged,
    }
    return ", ".join(f"{len(part)} {name}" for name, part in counts.items() if part) or "no runs"


def _left(outcome: "Outcome", dry_run: bool) -> int:
    """Name what is left, and say why; the exit code."""
    if dry_run and outcome.reason is None:
        print(*outcome.left, sep="\n", end="\n" if outcome.left else "")
        return 0
    if outcome.left:
        print(f"left: {some(outcome.left)}: {outcome.reason}; the same command goes on with them")
        return EXIT_CODE
    return 0
