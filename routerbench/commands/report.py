"""`routerbench report`."""

import argparse

from routerbench.report import options


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("report", help="turn records into leaderboards")
    options.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report that the words ask for."""
    checked = options.checked(arguments)
    from rich.console import Console

    from routerbench import report

    return report.write_report(checked, Console())
