"""A run read back: the trained model in a folder, of which nothing is executed, and what it was tested on."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import abspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import nn

from routerbench.attention import choose_attention
from routerbench.checks import check_count, check_one_of
from routerbench.config import conf_dir
from routerbench.device import PRECISIONS, choose_device
from routerbench.evaluate import Batch
from routerbench.moe.surgery import images_routed_together, take_shape
from routerbench.parts import TestSet, build_model, load_test, put_moe_layers
from routerbench.run_files import read_done, read_known, refusing
from routerbench.untrusted import complete_source, read_config
from routerbench.weights import Weights, checked_weights, head_prefixes, misfit, ranked_kind

# Whatever a configuration says, no other file is opened and nothing fetched.
LOADS_NOTHING = {"pretrained": False, "checkpoint_path": ""}


def load_run(path: str | Path, weights: str | None = None) -> nn.Module:
    """The trained model of a finished run, with its MoE layers, in evaluation mode on the CPU.

    `path` is the folder of the run, of which `config.yaml` and the weights are read; `weights` is raw or ema
    (their average), and without it what the record ranks. A router is of this package, or of a module that is
    imported already. Raises ValueError for what is missing, damaged, of a later version or does not fit.
    """
    folder = Path(path)
    with refusing(folder):
        config = read_config(folder)
        return _model(folder, config, checked_weights(folder, read_known(folder), weights))


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
        group = images_routed_together(self.model)
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
    chosen = choose_device(device, "--device")
    folder = Path(abspath(path))  # a record is that of its folder's name
    with refusing(folder):
        config = read_config(folder)
        record = read_done(folder, config)
        model = _on_device(_model(folder, config, checked_weights(folder, record, weights)), folder, chosen)
        _change(config, batch_size)
        test = _test_set(folder, config, data_path)
        _check_classes(folder, model, test)
    precision = PRECISIONS[config.precision]
    choose_attention(model, chosen, precision)
    autocast = torch.autocast(chosen.type, precision, enabled=config.precision != "fp32")
    return FinishedRun(folder, record, config, model, chosen, autocast, test, ranked_kind(folder, weights))


def _model(folder: Path, config: DictConfig, trained: Weights) -> nn.Module:
    """The model of this configuration with the weights of the run."""
    num_classes = _num_classes(config, trained)
    with torch.device("meta"):  # first, for other settings may take all memory
        problem = misfit(_built(config, num_classes), trained)
    if problem:
        raise ValueError(f"path={folder} has other weights than its config.yaml says: {problem}")
    model = _built(config, num_classes)
    model.load_state_dict(trained)
    return model.eval()


def _on_device(model: nn.Module, folder: Path, device: torch.device) -> nn.Module:
    try:
        return model.to(device)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"path={folder} has a model for which --device={device} has not the memory: free some, or take "
            "another"
        ) from None


def _built(config: DictConfig, num_classes: int) -> nn.Module:
    model = build_model(config, num_classes, **LOADS_NOTHING)
    put_moe_layers(model, config)
    take_shape(model, (config.data.image_size, config.data.image_size))
    return model


def _num_classes(config: DictConfig, weights: Weights) -> int:
    """How many classes the classifier of these weights has, which a configuration does not say."""
    with torch.device("meta"):
        head = head_prefixes(build_model(config, 2, **LOADS_NOTHING))
    return next((len(value) for key, value in weights.items() if head and key.startswith(head)), 0)


def _change(config: DictConfig, batch_size: int | None) -> None:
    """Have the images go through the model on this machine, as many at once as are asked for."""
    check_one_of("precision", config.precision, tuple(PRECISIONS))
    if batch_size is not None:
        check_count("--batch-size", batch_size)
        config.batch_size = batch_size
    check_count("batch_size", config.batch_size)
    config.runtime = OmegaConf.load(conf_dir() / "runtime" / "local.yaml")


def _test_set(folder: Path, config: DictConfig, data_path: str | None) -> TestSet:
    """What the run was tested on, at another place where one is given."""
    complete_source(folder, config.data.source, data_path)
    if "path" not in config.data.source:
        if data_path is not None:
            raise ValueError(
                f"--data-path={data_path} means nothing to data={config.data.name}, which is embedded"
            )
        return load_test(config)
    if data_path is not None:
        config.data.path = data_path
    try:
        return load_test(config)
    except ValueError as error:
        raise ValueError(f"path={folder}: {error} (--data-path says where it is now)") from error


def _check_classes(folder: Path, model: Any, test: TestSet) -> None:
    if model.num_classes != len(test.class_names):
        raise ValueError(
            f"path={folder} has a model of {model.num_classes} classes, and its data set now has "
            f"{len(test.class_names)}: give that of the run by --data-path"
        )
