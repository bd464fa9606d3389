"""From the words of a command to configurations, and from Hydra's errors to one line."""

import copy
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from routerbench.checks import did_you_mean
from routerbench.config import conf_dir
from routerbench.identity import identity, run_id
from routerbench.schema import register_schema

# Where a key that no file has is passed on to what it configures.
FREE = ("model.arguments.", "optim.arguments.", "optim.schedule_arguments.", "hydra.")
PART_OF_A_SPLIT = re.compile(r"^([\w.+]+=)([\w./-]+\[[\d.%]*:[\d.%]*\])$")
QUOTED_PART = re.compile(r"^([\w.+]+=)'([\w./-]+\[[\d.%]*:[\d.%]*\])'$")


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep."""

    words: tuple[str, ...]
    """Of the task, as a launcher takes them."""
    varied: str
    """Those of them in which the cells of the sweep differ."""
    config: DictConfig
    settings: dict[str, Any]
    """Its identity."""

    @property
    def run_id(self) -> str:
        """The name of its run."""
        return run_id(self.settings)


@dataclass(frozen=True)
class Sweep:
    """All that a command asks for."""

    cells: list[Cell]
    """Each run once, in the order of the words."""
    hydra: DictConfig
    """The configuration with Hydra's own node, of which a launcher is made."""
    multirun: bool

    @property
    def configs(self) -> list[DictConfig]:
        """What each cell runs."""
        return [cell.config for cell in self.cells]

    def name_of(self, cell: Cell) -> str:
        """What is said of a cell among others, by its number from 1; nothing of one alone."""
        return _name(self.cells.index(cell) + 1, len(self.cells), cell.varied)


def compose_sweep(overrides: Sequence[str], config_dir: str | None, multirun: bool) -> Sweep:
    """Compose every configuration that Hydra would run, with the same parser and sweeper.

    Raises ValueError, in one line, for words that give no configuration, for several values without
    multirun and for a new key that no part of the program reads.
    """
    register_schema()
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ValueError(f"--config-dir={config_dir} is not a folder: give the one that holds your files")
    parsed = _parsed(overrides)
    search = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        _refuse_new_keys(parsed, config_dir)
        base = _compose([str(o.input_line) for o in parsed if not _is_swept(o)] + search)
        of_task = [str(o.input_line) for o in parsed if not o.is_hydra_override()]
        swept = [o for o in parsed if _is_swept(o)]
        if not multirun and base.hydra.mode != RunMode.MULTIRUN:
            if swept:
                raise ValueError(f"{swept[0].input_line} gives several values: add -m to run them all")
            return Sweep([_cell(of_task, "", base, overrides)], base, multirun=False)
        of_sweep = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
        of_hydra = [str(o.input_line) for o in parsed if o.is_hydra_override()]
        (batch,) = BasicSweeper.split_arguments(_parsed([*of_sweep, *of_task]), None)
        shared = set(batch[0]).intersection(*batch)
        cells = [
            _cell(
                words,
                " ".join(word for word in words if word not in shared),
                _compose([*words, *of_hydra, *search]),
                overrides,
            )
            for words in batch
        ]
        return Sweep(
            list({cell.run_id: cell for cell in reversed(cells)}.values())[::-1], base, multirun=True
        )


def _name(number: int, total: int, varied: str) -> str:
    return f"cell {number} of {total} ({varied})" if total > 1 else ""


def one_line(error: Exception, overrides: Sequence[str]) -> str:
    """What is wrong with the command, naming the setting, its value and what would do."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options)
        return f"{group}={name} is not one of: {', '.join(options)}{did_you_mean(name, options)}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key = cause.full_key
        words = [word for word in overrides if word.lstrip("+~").startswith((f"{key}=", f"{key}."))]
        word = words[-1] if words else key
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return f"{word} is not a setting{_known_beside(key, overrides)}"
        return f"{word}: {str(cause).splitlines()[0]}"
    first, *more = str(error).strip().splitlines()
    return f"{first}: {more[0]}" if isinstance(error, OverrideParseException) and more else first


def repeating(overrides: Sequence[str], config_dir: str | None) -> str:
    """The command that runs one job alone, by the words of the task that Hydra gave to it.

    A sweep of ours says which runs there are and no setting of them; one of the user may say both.
    """
    sweeps = [word for word in overrides if word.startswith("+sweep=")]
    of_user = [word for word in sweeps if not (conf_dir() / "sweep" / f"{word[7:]}.yaml").exists()]
    words = ["--config-dir", config_dir] if config_dir is not None else []
    # Without the quotes that `quoted` gave them, for which the shell would want further ones.
    words += [QUOTED_PART.sub(r"\1\2", word) for word in overrides if word not in sweeps or word in of_user]
    return shlex.join(["routerbench", "train", *words, *["hydra.mode=RUN"] * bool(of_user)])


def quoted(words: Sequence[str]) -> list[str]:
    """The words as Hydra wants them: with quotes around train[:99%], of which the shell leaves none."""
    return [PART_OF_A_SPLIT.sub(r"\1'\2'", word) for word in words]


def _parsed(words: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(quoted(words))
    except HydraException as error:
        raise ValueError(one_line(error, words)) from error


def _refuse_new_keys(overrides: Sequence[Override], config_dir: str | None) -> None:
    """A key added with `+` is read by nothing, unless it chooses a file or is an argument of the model."""
    loader = GlobalHydra.instance().config_loader()
    for override in overrides:
        key = override.key_or_group
        chooses = loader.get_group_options(key) or (config_dir and Path(config_dir, key).is_dir())
        if override.is_add() and not chooses and not f"{key}.".startswith(FREE):
            raise ValueError(f"{override.input_line}: {key} is not a setting")


def _is_swept(override: Override) -> bool:
    return override.is_sweep_override() and not override.is_hydra_override()


def _compose(words: list[str]) -> DictConfig:
    try:
        return compose("train", words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(one_line(error, words)) from error


def _cell(words: Sequence[str], varied: str, composed: DictConfig, overrides: Sequence[str]) -> Cell:
    """The configuration of the program, without Hydra's own."""
    config = copy.copy(composed)
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        del config["hydra"]
    try:
        return Cell(tuple(words), varied, config, identity(config))
    except OmegaConfBaseException as error:
        raise ValueError(one_line(error, overrides)) from error


def _known_beside(key: str, overrides: Sequence[str]) -> str:
    """What would do: the nearest setting, and those that stand where the key would."""
    others = [word for word in overrides if not word.startswith((f"{key}=", f"{key}."))]
    if not GlobalHydra.instance().is_initialized():
        return ""  # not while composing
    try:
        node, parent = compose("train", others), key.rpartition(".")[0]
        siblings = [str(name) for name in (OmegaConf.select(node, parent) if parent else node)]
    except (HydraException, OmegaConfBaseException, TypeError):
        return ""  # something else is wrong too; this is what is said first
    place = f"{parent} has" if parent else "settings are"
    return f"{did_you_mean(key.rpartition('.')[2], siblings)}; {place}: {', '.join(siblings)}"
