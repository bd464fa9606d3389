"""The words by which `plan` and `status` are told of a sweep, those of `train -m`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routerbench.compose import Sweep


def add_cells(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Make the words known; `meaning` says what they are for."""
    parser.add_argument("words", nargs="*", metavar="SETTING", help=meaning)
    parser.add_argument("-m", "--multirun", action="store_true", help="as for train; it goes without saying")
    parser.add_argument("--config-dir", metavar="DIR", help="files of yours beside those of conf/")


def sweep_of(arguments: argparse.Namespace) -> "Sweep":
    """The sweep that the words tell of; raises ValueError for words that give none."""
    from routerbench.compose import compose_sweep, import_from

    import_from(arguments.config_dir)
    return compose_sweep(arguments.words, arguments.config_dir, multirun=True)
