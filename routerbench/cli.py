"""The command line: it knows the commands, and says in one line what they refuse."""

import argparse
import sys
from typing import NoReturn

from routerbench.commands import (
    bench,
    costs,
    eval,
    inspect,
    plan,
    report,
    status,
    sweep_to_wandb,
    sync,
    train,
)
from routerbench.refusal import refuse

USAGE = """\
routerbench compares Mixture-of-Experts routers for vision, head to head, at equal cost.

  routerbench train router=expert_choice                     one run, on a data set that needs no download
  routerbench train -m router=token_choice,soft seed=0,1,2   every combination
  routerbench train -m +sweep=pocket_routers                 a question of sweeps/
  routerbench train --help                                   every setting
  routerbench plan +sweep=pocket_routers [--detect 0.3]      what of it is done, and what the rest will take
  routerbench status [+sweep=pocket_routers]                 how the runs stand, live on a terminal
  routerbench eval results/runs/RUN                          at other capacities, routers, images
  routerbench inspect results/runs/RUN                       what its routers do, in numbers and pictures
  routerbench report [--results DIR]                         results/ -> leaderboards
  routerbench sync                                           W&B is made equal to the records
  routerbench sweep-to-wandb pocket_routers                  the same question as a sweep of W&B
  routerbench costs --gpus 64 model=vit_base                 memory and traffic of a layout of GPUs, on paper
  routerbench bench [layer] [router] [model] [memory]        what layers, routers, models cost on this machine
"""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the words of a command."""

    def error(self, message: str) -> NoReturn:
        sys.exit(refuse(message))


def main() -> None:
    """Run the command of `sys.argv`; exits with 2 for what the user should change, 1 for failed runs."""
    parser = Parser(prog="routerbench", usage=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="command", prog="routerbench", required=True)
    commands.add_parser("train", add_help=False, help="train what the settings say, and record it")
    for command in (plan, status, eval, inspect, report, sync, sweep_to_wandb, costs, bench):
        command.add_to(commands)
    if sys.argv[1:2] == ["train"]:  # Hydra has a parser of its own
        sys.exit(train.train(sys.argv[2:]))
    if sys.argv[1:2] == ["-sc"]:  # the shell asks for completions
        sys.exit(train.train([word for word in sys.argv[1:] if word != "train"]))
    arguments = _parsed(parser)
    try:
        sys.exit(arguments.run(arguments))
    except (ValueError, OSError) as error:
        sys.exit(refuse(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _parsed(parser: Parser) -> argparse.Namespace:
    """The arguments, among which settings may stand anywhere."""
    arguments, more = parser.parse_known_args()
    if more and (not hasattr(arguments, "words") or any(word.startswith("-") for word in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    arguments.words = [*getattr(arguments, "words", ()), *more]
    return arguments
