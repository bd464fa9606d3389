"""`routerbench sweep-to-wandb`."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("sweep-to-wandb", help="print a question of sweeps/ as a sweep of W&B")
    parser.add_argument("name", metavar="NAME", help="a file of sweeps/")
    parser.add_argument("words", nargs="*", metavar="SETTING", help="as those of train, beside +sweep=NAME")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the YAML that `wandb sweep` takes."""
    from routerbench.tracking.wandb_sweep import wandb_sweeps

    print(wandb_sweeps(arguments.name, arguments.words), end="")
    return 0
