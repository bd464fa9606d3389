"""How `eval` and `inspect` open finished runs."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from os.path import abspath
from pathlib import Path

from routerbench.timm_import import import_timm


def add_opening(parser: argparse.ArgumentParser) -> None:
    """Make the words known that say how a run is opened."""
    opening = parser.add_argument_group("how runs are opened")
    opening.add_argument("--weights", choices=("raw", "ema"), help="without it those that the record ranks")
    opening.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")
    opening.add_argument("--batch-size", type=int, metavar="N", help="images at once; without it the run's")
    opening.add_argument("--data-path", metavar="DIR", help="where the data set is now")
    opening.add_argument("--threads", type=int, metavar="N", help="of the processor")
    opening.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a file of yours that holds a run's router or data set, which may then be used; repeatable",
    )


def be_ready(arguments: argparse.Namespace, folders: Sequence[Path]) -> list[str]:
    """Import the files that the words name, and take as many threads as they say.

    Gives back why none of the folders can be opened, as soon as that is known, which is before torch is
    imported; nothing where one of them may be. Raises ValueError.
    """
    _import_modules(arguments.modules)
    refusals = []
    for folder in folders:
        refusal = _refusal(folder)
        if refusal is None:
            break
        refusals.append(refusal)
    else:
        return refusals
    import_timm()
    import torch

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return []


def _refusal(folder: Path) -> str | None:
    """Why the folder is not that of a finished run, by its configuration and its record."""
    from routerbench.run_files import read_done, refusing
    from routerbench.untrusted import read_config

    folder = Path(abspath(folder))  # a record is that of its folder's name
    try:
        with refusing(folder):
            read_done(folder, read_config(folder))
    except ValueError as error:
        return str(error)
    return None


def _import_modules(files: Sequence[Path]) -> None:
    """Import files of the user, each by its name, as `train --config-dir` would from their folder.

    Raises ValueError for one that is no file of Python or cannot be imported.
    """
    for file in files:
        if file.suffix != ".py" or not file.is_file():
            raise ValueError(f"--import={file} is no file of Python: give one, such as mine/my_router.py")
        sys.path.insert(0, str(file.parent.resolve()))
        try:
            imported = import_module(file.stem)
        except Exception as error:  # of whatever it does
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ValueError(f"--import={file} cannot be imported: {reason}") from error
        if Path(imported.__file__ or "").resolve() != file.resolve():
            raise ValueError(
                f"--import={file} has the name of a module that is imported already, {file.stem}: give "
                "the file another name"
            )
