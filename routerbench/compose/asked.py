"""What a command asks for: the words of Hydra and of the sweep's file, composed to cells."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from routerbench.compose.cells import Cell, Sweep, name, varied
from routerbench.compose.composer import Composer, of_program
from routerbench.compose.errors import one_line
from routerbench.compose.products import Product, products
from routerbench.compose.words import is_swept, parsed
from routerbench.config import conf_dir
from routerbench.identity import identity
from routerbench.schema import register_schema

# Where a key that no file has is passed on to what it configures.
FREE = ("model.arguments.", "optim.arguments.", "optim.schedule_arguments.", "hydra.")


@dataclass(frozen=True)
class Asked:
    """What a command asks for, before it is composed to cells."""

    words: list[Override]
    """Of the task."""
    composer: Composer

    @cached_property
    def outer(self) -> DictConfig:
        """What the files that the words name say of Hydra and of the sweep."""
        files = [o for o in self.words if not is_swept(o) and self.composer.chooses_files(o)]
        return self.composer.whole([str(word.input_line) for word in files])

    def products(self) -> list[Product]:
        """What all runs are: of every product each combination."""
        union = self.outer.union or []
        sweeper = self.outer.hydra.runtime.choices["hydra/sweeper"]
        if union and sweeper != "basic":
            raise ValueError(f"hydra/sweeper={sweeper} cannot take a sweep with a union: leave it out")
        try:
            return products(self.outer.hydra.sweeper.params or {}, union, self.words)
        except HydraException as error:
            raise ValueError(one_line(error, [])) from error


@contextmanager
def asked(overrides: Sequence[str], config_dir: str | None) -> Iterator[Asked]:
    """Read the words, while Hydra knows the files; raises ValueError for words that mean nothing."""
    register_schema()
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ValueError(f"--config-dir={config_dir} is not a folder: give the one that holds your files")
    words = parsed(overrides)
    further = [str(word.input_line) for word in words if word.is_hydra_override()]
    if config_dir is not None:
        further.append(f"hydra.searchpath=[file://{Path(config_dir).resolve()}]")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composer = Composer(further, config_dir)
        of_task = [word for word in words if not word.is_hydra_override()]
        _refuse_new_keys(of_task, composer)
        _refuse_of_sweeps(of_task)
        yield Asked(of_task, composer)


def compose_sweep(overrides: Sequence[str], config_dir: str | None, multirun: bool) -> Sweep:
    """Compose every configuration that a command asks for, by Hydra's parser and the rules of its sweeper.

    Raises ValueError, in one line, for words that give no configuration, for several values without
    multirun and for a new key that no part of the program reads.
    """
    with asked(overrides, config_dir) as command:
        swept = [str(word.input_line) for word in command.words if is_swept(word)]
        if not multirun and not swept:
            words = [str(word.input_line) for word in command.words]
            whole = command.composer.whole(words)
            if whole.hydra.mode is None:
                _refuse_several(whole)
            if whole.hydra.mode != RunMode.MULTIRUN:
                return Sweep([_cell(words, "", of_program(whole))], whole, multirun=False)
        if not multirun and command.outer.hydra.mode != RunMode.MULTIRUN:
            raise ValueError(f"{swept[0]} gives several values: add -m to run them all")
        if command.outer.hydra.runtime.choices["hydra/sweeper"] != "basic" and not command.outer.union:
            return Sweep([], command.outer, multirun=True)  # it chooses as it goes
        batch = [list(words) for each in command.products() for words in product(*each.values())]
        cells = _cells(command.composer, batch)
        return Sweep(cells, command.composer.whole(batch[0]), multirun=True)


def _cells(composer: Composer, batch: Sequence[Sequence[str]]) -> list[Cell]:
    shared = set(batch[0]).intersection(*batch)
    cells: dict[str, Cell] = {}
    for number, words in enumerate(batch, start=1):
        of_cell = varied(words, shared)
        try:
            cell = _cell(words, of_cell, composer.program(words))
        except ValueError as error:
            beginnings = [[word for word in words if word in shared], *([word] for word in words)]
            blamed = any(_line(composer, some) == str(error) for some in beginnings)
            of_name = "" if blamed else name(number, len(batch), of_cell)
            raise ValueError(f"{of_name}: {error}" if of_name else str(error)) from error
        cells.setdefault(cell.run_id, cell)
    return list(cells.values())


def _cell(words: Sequence[str], of_cell: str, config: DictConfig) -> Cell:
    try:
        return Cell(tuple(words), of_cell, config, identity(config))
    except OmegaConfBaseException as error:
        raise ValueError(one_line(error, words)) from error


def _line(composer: Composer, words: Sequence[str]) -> str | None:
    """What is wrong with these words by themselves."""
    try:
        _cell(words, "", composer.program(words))
    except ValueError as error:
        return str(error)
    return None


def _refuse_several(whole: DictConfig) -> None:
    """What a file says of several runs, where only one is asked for."""
    for setting in ("hydra.sweeper.params", "union"):
        if OmegaConf.select(whole, setting):
            raise ValueError(f"{setting} gives several runs: add -m to run them all")


def _refuse_new_keys(words: Sequence[Override], composer: Composer) -> None:
    """A key added with `+` is read by nothing, unless it chooses a file or is an argument of the model."""
    for word in words:
        key = word.key_or_group
        if word.is_add() and not composer.chooses_files(word) and not f"{key}.".startswith(FREE):
            raise ValueError(f"{word.input_line}: {key} is not a setting")


def _refuse_of_sweeps(words: Sequence[Override]) -> None:
    """What is a matter of files: which sweep it is, of which products; and what gives no further run."""
    for word in words:
        if word.key_or_group == "sweep" and word.is_sweep_override():
            raise ValueError(f"{word.input_line} are several sweeps: give each a command of its own")
        if word.key_or_group.startswith("runtime.") and word.is_sweep_override():
            raise ValueError(
                f"{word.input_line} are several values for the same runs, each of which is run once: give one"
            )
        if word.key_or_group == "union":
            raise ValueError(
                f"{word.input_line}: union is for files of sweeps: write one, see docs/sweeps.md"
            )
