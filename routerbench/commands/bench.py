"""`routerbench bench`."""

import argparse
import shlex
import sys

from routerbench.bench import options


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("bench", help="time layers, routers and models on this machine")
    options.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure; 1 where a contestant failed."""
    checked = options.checked(arguments)
    from rich.console import Console

    from routerbench.bench import command

    try:
        went_through = command.bench(checked, f"routerbench {shlex.join(sys.argv[1:])}", Console())
    except KeyboardInterrupt:
        print("stopped: what --json names has the cases that were done", file=sys.stderr)
        return 130
    return 0 if went_through else 1
