"""From the words of a command to configurations, and from Hydra's errors to one line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from routerbench.checks import did_you_mean
from routerbench.config import conf_dir, register_schema


@dataclass(frozen=True)
class Cells:
    """The configurations that a command asks for."""

    configs: list[DictConfig]
    multirun: bool


def cells(overrides: Sequence[str], config_dir: str | None, multirun: bool) -> Cells:
    """Compose every configuration that Hydra would run, with the same parser and sweeper.

    Raises what Hydra raises; `one_line` says it shortly.
    """
    register_schema()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        search = [f"hydra.searchpath=[file://{os.path.abspath(config_dir)}]"] if config_dir else []
        fixed = [word for word, override in zip(overrides, parsed, strict=True) if not _is_swept(override)]
        base = compose("train", [*fixed, *search], return_hydra_config=True)
        if not multirun and base.hydra.mode != RunMode.MULTIRUN:
            return Cells([_job(compose("train", [*overrides, *search], return_hydra_config=True))], False)
        sweep = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
        of_task = [word for word, o in zip(overrides, parsed, strict=True) if not o.is_hydra_override()]
        of_hydra = [word for word, o in zip(overrides, parsed, strict=True) if o.is_hydra_override()]
        every = OverridesParser.create().parse_overrides([*sweep, *of_task])
        (batch,) = BasicSweeper.split_arguments(every, None)
        configs = [
            _job(compose("train", [*words, *of_hydra, *search], return_hydra_config=True)) for words in batch
        ]
        return Cells(configs, True)


def one_line(error: Exception, overrides: Sequence[str]) -> str:
    """What is wrong with the command, naming the setting, its value and what would do."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options)
        return f"{group}={name} is not one of: {', '.join(options)}{did_you_mean(name, options)}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        value = _value_of(cause.full_key, overrides)
        if "not in struct" in str(cause) or "not in '" in str(cause):
            return f"{cause.full_key}={value} is not a setting{did_you_mean(cause.full_key, _known_keys())}"
        return f"{cause.full_key}={value}: {str(cause).splitlines()[0]}"
    return str(error).strip().splitlines()[0]


def _is_swept(override: Override) -> bool:
    return override.is_sweep_override() and not override.is_hydra_override()


def _job(config: DictConfig) -> DictConfig:
    """The configuration of the program, with what it takes from Hydra's resolved."""
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        del config["hydra"]
    return config


def _value_of(key: str, overrides: Sequence[str]) -> str:
    for override in overrides:
        name, _, value = override.partition("=")
        if name.lstrip("+~") == key:
            return value
    return ""


def _known_keys() -> list[str]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train")
    return list(_dotted(OmegaConf.to_container(config), ""))


def _dotted(node: object, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for key, value in node.items():
        keys += [f"{prefix}{key}", *_dotted(value, f"{prefix}{key}.")]
    return keys
