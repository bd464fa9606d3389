"""A run read back: the trained model in a folder, of which nothing is executed, and what it was tested on."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException
from torch import nn
from yaml import YAMLError

from routerbench.attention import choose_attention
from routerbench.checks import check_count
from routerbench.config import conf_dir, is_dense
from routerbench.device import PRECISIONS, choose_device
from routerbench.evaluate import Batch
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.parts import TestSet, build_model, load_test, put_moe_layers
from routerbench.records import SCHEMA, own_record, read_record
from routerbench.weights import FILES, Weights, head_prefixes, misfit, ranked_file, read_weights, sha256_of

OWN_ROUTER = re.compile(r"routerbench\.routers\.\w+\.\w+")
OWN_DATA = re.compile(r"routerbench\.data\.\w+\.\w+")
# Whatever a configuration says, no other file is opened and nothing fetched.
LOADS_NOTHING = {"pretrained": False, "checkpoint_path": ""}


def load_run(path: str | Path, weights: str | None = None) -> nn.Module:
    """The trained model of a finished run, with its MoE layers, in evaluation mode on the CPU.

    `path` is the folder of the run, of which `config.yaml` and the weights are read; `weights` is raw or ema
    (their average), and without it what the record ranks. A router is of this package, or of a module that is
    imported already. Raises ValueError for what is missing, damaged, of a later version or does not fit.
    """
    config = _read_config(Path(path))
    _check_sum(Path(path), weights)
    return _model(Path(path), config, weights)


@dataclass(frozen=True)
class FinishedRun:
    """A run that is over: its record, its trained model, and the images that it was tested on."""

    folder: Path
    record: dict[str, Any]
    config: DictConfig
    model: nn.Module
    """In evaluation mode, on `device`."""
    device: torch.device
    autocast: torch.autocast
    test: TestSet
    weights: str
    """Which of its weights the model has: raw, or their average ema."""

    @property
    def run_id(self) -> str:
        """Its name in the ledger."""
        return self.record["run_id"]

    def batches(self, places: NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """The test images at these places, in this order, or all; in batches of whole routing groups."""
        group = max((layer.images_per_group for layer in moe_layers(self.model).values()), default=1)
        return self.test.batches(places, -(-self.config.batch_size // group) * group)


def open_run(
    path: str | Path,
    *,
    weights: str | None = None,
    device: str = "auto",
    data_path: str | None = None,
    batch_size: int | None = None,
) -> FinishedRun:
    """Open a run that is done, to ask its model further questions.

    `weights` as in `load_run`; `data_path` is where the data set is now, `batch_size` how many images go
    through the model at once, and without it as many as in training. Raises ValueError for a folder that is
    incomplete, of a later version, whose weights are not those that were written, or that could execute
    something; and for a device or data that are not there.
    """
    folder = Path(path)
    config = _read_config(folder)
    record = _read_done(folder)
    _check_sum(folder, weights)
    _check_data(folder, config)
    chosen = choose_device(device, "--device")
    if data_path is not None:
        _move_data(config, data_path)
    if batch_size is not None:
        check_count("--batch-size", batch_size)
        config.batch_size = batch_size
    config.runtime = OmegaConf.load(conf_dir() / "runtime" / "local.yaml")
    model = _model(folder, config, weights).to(chosen)
    precision = PRECISIONS[config.precision]
    choose_attention(model, chosen, precision)
    autocast = torch.autocast(chosen.type, precision, enabled=config.precision != "fp32")
    test = load_test(config)
    _check_classes(folder, config, len(test.class_names), weights)
    return FinishedRun(folder, record, config, model, chosen, autocast, test, _kind(folder, weights))


def _model(folder: Path, config: DictConfig, choice: str | None) -> nn.Module:
    """The model of this configuration with the weights of the run."""
    path = folder
    trained = read_weights(folder, setting="path", choice=choice)
    try:
        model = build_model(config, _num_classes(config, trained), **LOADS_NOTHING)
        put_moe_layers(model, config)
        take_shape(model, (config.data.image_size, config.data.image_size))
    except ConfigAttributeError as error:
        raise ValueError(
            f"path={path} has a config.yaml without {error.full_key}: give the folder of a finished run"
        ) from None
    problem = misfit(model, trained)
    if problem:
        raise ValueError(f"path={path} has other weights than its config.yaml says: {problem}")
    model.load_state_dict(trained)
    return model.eval()


def _read_done(folder: Path) -> dict[str, Any]:
    """The record of a run that is done, by a version of the program that is known here."""
    record = own_record(folder)
    if record is None:
        raise ValueError(f"path={folder} has no record.json: the run is not over, train it to its end first")
    if record["schema"] > SCHEMA:
        raise ValueError(
            f"path={folder} has a record of version {record['schema']}, and this program knows up to "
            f"{SCHEMA}: take the program that wrote it, or a later one"
        )
    if record["status"] != "done":
        raise ValueError(f"path={folder} is of a run that has {record['status']}: give one that is done")
    return record


def _check_sum(folder: Path, choice: str | None) -> None:
    """Refuse weights that are not those of the record, where it says which these are."""
    record = read_record(folder) or {}
    file, kind = ranked_file(folder, choice), _kind(folder, choice)
    sums = record.get("provenance", {}).get("weights_sha256", {})
    if kind in sums and file.is_file() and sha256_of(file) != sums[kind]:
        raise ValueError(
            f"path={folder} has a {file.name} that is not the one that was written there (its checksum is "
            "another): bring it back, or train the run again"
        )


def _kind(folder: Path, choice: str | None) -> str:
    """Raw or ema, whichever is asked for or, without a choice, ranked by the record."""
    name = ranked_file(folder, choice).name
    return next(kind for kind, known in FILES.items() if known == name)


def _check_data(folder: Path, config: DictConfig) -> None:
    """Refuse a data set that would run what is not of this package."""
    source = OmegaConf.select(config, "data.source")
    target = source.get("_target_") if isinstance(source, DictConfig) else None
    module = str(target).rpartition(".")[0]
    if not OWN_DATA.fullmatch(str(target)) and module not in sys.modules:
        raise ValueError(
            f"path={folder} has data.source._target_={target}, which is not of this package: if you trust "
            f"it, import {module or target} first"
        )
    nested = [key for key, value in source.items() if OmegaConf.is_config(value) and "_target_" in str(value)]
    if nested:
        raise ValueError(f"path={folder} has data.source.{nested[0]} with a _target_, which no run has")


def _check_classes(folder: Path, config: DictConfig, num_classes: int, choice: str | None) -> None:
    trained = _num_classes(config, read_weights(folder, setting="path", choice=choice))
    if trained != num_classes:
        raise ValueError(
            f"path={folder} has a model of {trained} classes, and its data set now has {num_classes}: give "
            "that of the run by --data-path"
        )


def _move_data(config: DictConfig, path: str) -> None:
    """Have the data set read from another folder than in training."""
    if "path" not in config.data.source:
        raise ValueError(f"--data-path={path} means nothing to data={config.data.name}, which is embedded")
    config.data.path = config.data.source.path = path


def _read_config(folder: Path) -> DictConfig:
    """The configuration of a run; raises ValueError for one that is missing, or could execute something."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        config = OmegaConf.create(text)
    except OSError:
        raise ValueError(f"path={folder} has no config.yaml: give the folder of a finished run") from None
    except (UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(
            f"path={folder} has a config.yaml that cannot be read ({type(error).__name__}): give another run"
        ) from None
    if "${" in text:  # that of a run is resolved, and a resolver may be any function
        raise ValueError(f"path={folder} has a config.yaml with interpolations (${{...}}), which no run has")
    needed = ("router.name", "placement")
    if not isinstance(config, DictConfig) or any(OmegaConf.select(config, key) is None for key in needed):
        raise ValueError(f"path={folder} has a config.yaml without router and placement, which every run has")
    if not is_dense(config):
        _check_router(folder, str(config.router.get("_target_")))
    return config


def _check_router(folder: Path, target: str) -> None:
    # To look a class up is to import its module, which runs it.
    module = target.rpartition(".")[0]
    if not OWN_ROUTER.fullmatch(target) and module not in sys.modules:
        raise ValueError(
            f"path={folder} has router._target_={target}, which is not of this package: if you trust it, "
            f"import {module or target} first"
        )


def _num_classes(config: DictConfig, weights: Weights) -> int:
    """How many classes the classifier of these weights has, which a configuration does not say."""
    with torch.device("meta"):
        head = head_prefixes(build_model(config, 2, **LOADS_NOTHING))
    return next((len(value) for key, value in weights.items() if head and key.startswith(head)), 0)
