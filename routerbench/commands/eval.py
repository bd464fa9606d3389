"""`routerbench eval`: what trained models do when they are evaluated otherwise."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("eval", help="trained models at other capacities, batches, routers, images")
    parser.add_argument("words", nargs="*", metavar="RUN", help="folders of finished runs, and settings")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what is not in the records yet."""
    raise NotImplementedError
