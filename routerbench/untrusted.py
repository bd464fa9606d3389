"""The folder of a run, as somebody gave it: read and refused before anything that it names can execute."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException

from routerbench.config import is_dense
from routerbench.data.sources import Source
from routerbench.identity import LATER
from routerbench.records import SCHEMA, is_of, read_record
from routerbench.weights import FILES, Weights, ranked_file, read_weights, sha256_of

OWN_ROUTER = re.compile(r"routerbench\.routers\.\w+\.\w+")
OWN_SOURCE = re.compile(r"routerbench\.data\.\w+\.\w+")
MOST_BYTES = {"config.yaml": 2**15, "record.json": 2**27}  # far above those of any run
# What a configuration need not say of its data set.
OF_SOURCES = {
    key.removeprefix("data.source."): value for key, value in LATER.items() if key.startswith("data.source.")
}


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Inside, whatever fails for what is in the folder is a ValueError of one line."""
    try:
        yield
    except ValueError as error:
        if "\n" not in str(error):
            raise
        raise ValueError(f"path={folder}: {_one_line(error)}") from error
    except OSError as error:
        place = error.filename or folder
        raise ValueError(f"path={place} cannot be read: {error.strerror or error}") from error
    except ConfigAttributeError as error:
        raise ValueError(
            f"path={folder} has a config.yaml without {error.full_key}: give the folder of a finished run"
        ) from None
    except Exception as error:  # of timm or torch, for settings that no run has
        raise ValueError(
            f"path={folder} has a config.yaml of which nothing can be made ({type(error).__name__}: "
            f"{_one_line(error)}): give another run"
        ) from error


def read_config(folder: Path) -> DictConfig:
    """The configuration of a run; raises ValueError for one that is missing, or could execute something."""
    if not _has(folder, "config.yaml"):
        raise ValueError(f"path={folder} has no config.yaml: give the folder of a finished run")
    try:
        config = _parsed((folder / "config.yaml").read_text(encoding="utf-8"))
        has_interpolations = "${" in str(OmegaConf.to_container(config))
        is_whole = isinstance(config, DictConfig) and None not in (
            OmegaConf.select(config, key) for key in ("router.name", "placement")
        )
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
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


def read_known(folder: Path) -> dict[str, Any] | None:
    """The record in the folder, None where there is none; raises ValueError for a damaged or later one."""
    if not _has(folder, "record.json"):
        return None
    try:
        record = read_record(folder) or {}
    except ValueError:
        record = {}
    if record and record["schema"] > SCHEMA:
        raise ValueError(
            f"path={folder} has a record of version {record['schema']}, and this program knows up to "
            f"{SCHEMA}: take the program that wrote it, or a later one"
        )
    if not record or not _is_sound(record):
        raise ValueError(
            f"path={folder} has a record.json that is damaged: bring it back, or give another run"
        )
    return record


def read_done(folder: Path, config: DictConfig) -> dict[str, Any]:
    """The record of a run that is done, of this folder and this configuration; else raises ValueError."""
    record = read_known(folder)
    if record is None:
        raise ValueError(f"path={folder} has no record.json: the run is not over, train it to its end first")
    if not is_of(record, folder):
        raise ValueError(
            f"path={folder} has the record of run {record['run_id']}: name the folder so, or bring its own "
            "record.json back"
        )
    if record["status"] != "done":
        raise ValueError(
            f"path={folder} is of a run that has {_ended(record['status'])}: give one that is done"
        )
    if OmegaConf.to_container(config) != record["config"]:
        raise ValueError(f"path={folder} has a config.yaml that is not that of its record: bring it back")
    return record


def kind_of_weights(folder: Path, choice: str | None) -> str:
    """Raw or ema, whichever is asked for or, without a choice, ranked by the record."""
    file = ranked_file(folder, choice)
    kind, other = sorted(FILES, key=lambda name: FILES[name] != file.name)
    if choice is not None and not file.is_file() and (folder / FILES[other]).is_file():
        raise ValueError(f"weights={kind} is not what the run in {folder} left: take weights={other}")
    return kind


def checked_weights(folder: Path, record: dict[str, Any] | None, kind: str) -> Weights:
    """The weights of a run; raises ValueError for others than those of the record, where it says which."""
    file = folder / FILES[kind]
    sums = (record or {}).get("provenance", {}).get("weights_sha256", {})
    if kind in sums and file.is_file() and sha256_of(file) != sums[kind]:
        raise ValueError(
            f"path={folder} has a {file.name} that is not the one that was written there (its checksum is "
            "another): bring it back, or train the run again"
        )
    return read_weights(folder, setting="path", choice=kind)


def complete_source(folder: Path, source: Any) -> None:
    """Give a data set what its function takes and an older run does not say; nothing is downloaded.

    Raises ValueError where it is not a function that makes a data set, of this package or of a module that is
    imported already, with plain settings.
    """
    target = str(source.get("_target_")) if isinstance(source, DictConfig) else "None"
    function = _source_function(target)
    if not callable(function) or get_type_hints(function).get("return") is not Source:
        raise ValueError(
            f"path={folder} has data.source._target_={target}, which is no function of this package that "
            "returns a Source: if you trust it, give it that return type and import its module first"
        )
    settings = [key for key in source if key != "_target_"]
    odd = [key for key in settings if str(key).startswith("_") or "_target_" in str(source[key])]
    if odd:
        raise ValueError(f"path={folder} has data.source.{odd[0]}={source[odd[0]]}, which no run has")
    parameters = signature(function).parameters
    missing = {key: value for key, value in OF_SOURCES.items() if key in parameters and key not in source}
    fetching = {"download": False} if "download" in parameters else {}
    source.update({**missing, **fetching})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _is_sound(record: dict[str, Any]) -> bool:
    """Whether what is looked up in a record can be."""
    parts = [record.get(name, {}) for name in ("metrics", "cost", "evaluation", "evaluations", "provenance")]
    nested = parts[-1].get("weights_sha256", {}) if isinstance(parts[-1], dict) else None
    return all(isinstance(part, dict) for part in (*parts, nested))


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
            f"import {module or target} first"
        )


def _has(folder: Path, name: str) -> bool:
    """Whether the file is there; raises ValueError for one that no run has written."""
    path = folder / name
    if path.exists() and not path.is_file():  # such as a pipe, on which a reader would wait
        raise ValueError(f"path={folder} has a {name} that is no file: give the folder of a finished run")
    if path.exists() and path.stat().st_size > MOST_BYTES[name]:
        raise ValueError(
            f"path={folder} has a {name} of more than {MOST_BYTES[name]} bytes, which no run has: give "
            "another run"
        )
    return path.exists()


def _parsed(text: str) -> Any:
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # a few grow to gigabytes
        raise yaml.YAMLError("aliases")
    return OmegaConf.create(text)


def _ended(status: str) -> str:
    """The status of a record, as the end of a sentence."""
    return {"oom": "run out of memory"}.get(status, status)
