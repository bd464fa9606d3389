"""What a run's configuration names, of which nothing can execute: read as from a stranger."""

import re
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from routerbench.config import is_dense
from routerbench.identity import LATER
from routerbench.run_files import has_file

OWN_ROUTER = re.compile(r"routerbench\.routers\.\w+\.\w+")
OWN_SOURCE = re.compile(r"routerbench\.data\.\w+\.\w+")
HUB = "routerbench.data.hub"
MOST_NESTED = 30  # levels, far above those of any run
# What a configuration need not say of its data set.
OF_SOURCES = {
    key.removeprefix("data.source."): value for key, value in LATER.items() if key.startswith("data.source.")
}


def read_config(folder: Path) -> DictConfig:
    """The configuration of a run; raises ValueError for one that is missing, or could execute something."""
    if not has_file(folder, "config.yaml"):
        raise ValueError(f"path={folder} has no config.yaml: give the folder of a finished run")
    try:
        config = _parsed((folder / "config.yaml").read_text(encoding="utf-8"))
        has_interpolations = "${" in str(OmegaConf.to_container(config))
        is_whole = isinstance(config, DictConfig) and None not in (
            OmegaConf.select(config, key) for key in ("router.name", "placement")
        )
    except (UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(
            f"path={folder} has a config.yaml that cannot be read ({type(error).__name__}): give another run"
        ) from None
    if has_interpolations:  # that of a run is resolved, and a resolver may be any function
        raise ValueError(f"path={folder} has a config.yaml with interpolations (${{...}}), which no run has")
    if not is_whole:
        raise ValueError(f"path={folder} has a config.yaml without router and placement, which every run has")
    if not is_dense(config):
        _check_router(folder, str(config.router.get("_target_")))
    return config


def complete_source(folder: Path, source: Any, data_path: str | None = None) -> None:
    """Give a data set what its function takes and an older run does not say, and its path where one is given.

    Functions of this package then fetch nothing that only the configuration names. Raises ValueError where
    the hub would have to send a data set of the configuration's choice, and where it is not a function that
    makes a data set, of this package or of a module that is imported already, with plain settings.
    """
    from routerbench.data.sources import Source  # and torch, for which a refusal of the rest need not wait

    target = str(source.get("_target_")) if isinstance(source, DictConfig) else "None"
    function = _source_function(target)
    if not callable(function) or get_type_hints(function).get("return") is not Source:
        raise ValueError(
            f"path={folder} has data.source._target_={target}, which is no function of this package that "
            "returns a Source: if you trust it, give it that return type, and import it first (eval and "
            "inspect: --import FILE)"
        )
    settings = [key for key in source if key != "_target_"]
    odd = [key for key in settings if str(key).startswith("_") or "_target_" in str(source[key])]
    if odd:
        raise ValueError(f"path={folder} has data.source.{odd[0]}={source[odd[0]]}, which no run has")
    parameters = signature(function).parameters
    missing = {key: value for key, value in OF_SOURCES.items() if key in parameters and key not in source}
    fetching = {"download": False} if "download" in parameters else {}
    source.update({**missing, **fetching})
    if data_path is not None and "path" in source:
        source.path = data_path
    elif function.__module__ == HUB:
        _check_is_here(folder, source.get("path"))


def _check_is_here(folder: Path, path: Any) -> None:
    if path is not None and not Path(str(path)).is_dir():
        raise ValueError(
            f"path={folder} has data.source.path={path}, which the hub may have to send: if you trust it, "
            f"name it yourself by --data-path {path}"
        )


def _source_function(target: str) -> Any:
    """What this names in a module of this package, or in one that is imported; None where it is nowhere."""
    module, _, name = target.rpartition(".")
    if OWN_SOURCE.fullmatch(target):
        try:
            import_module(module)
        except ModuleNotFoundError:
            return None
    return getattr(sys.modules.get(module), name, None)


def _check_router(folder: Path, target: str) -> None:
    # To look a class up is to import its module, which runs it.
    module, _, name = target.rpartition(".")
    if not OWN_ROUTER.fullmatch(target) and not hasattr(sys.modules.get(module), name):
        raise ValueError(
            f"path={folder} has router._target_={target}, which is not of this package: if you trust it, "
            f"import {module or target} first (eval and inspect: --import FILE)"
        )


def _parsed(text: str) -> Any:
    depth = 0
    for event in yaml.parse(text):  # lazily: what is nested takes the square of its depth
        opens, closes = (
            isinstance(event, yaml.CollectionStartEvent),
            isinstance(event, yaml.CollectionEndEvent),
        )
        depth += opens - closes
        if depth > MOST_NESTED or isinstance(event, yaml.AliasEvent):  # a few aliases grow to gigabytes
            raise yaml.YAMLError("nested, or with aliases, as none of a run is")
    return OmegaConf.create(text)
