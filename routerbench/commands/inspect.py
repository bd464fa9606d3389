"""`routerbench inspect`: what the routers of trained models do, in numbers and pictures."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("inspect", help="who serves what: maps, specialisation, pictures of images")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at the routing of each run."""
    raise NotImplementedError
