"""`routerbench costs`."""

import argparse
from pathlib import Path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("costs", help="memory and traffic of a layout of GPUs, on paper")
    parser.add_argument("--gpus", type=int, metavar="N", help="all layouts of so many, instead of parallel.*")
    parser.add_argument(
        "--paste", type=Path, metavar="FILE", help="also replace the tables in this Markdown file"
    )
    parser.add_argument(
        "words", nargs="*", metavar="SETTING", help="as those of train; several values: several tables"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show what the layouts take."""
    from rich.console import Console

    from routerbench import footprint_table
    from routerbench.compose import compose_sweep

    sweep = compose_sweep(arguments.words, None, multirun=True)
    footprint_table.show(sweep.configs, arguments.gpus, arguments.paste, Console())
    return 0
