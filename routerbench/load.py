"""A run read back: the trained model in a folder, of which nothing is executed."""

import re
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException
from torch import nn
from yaml import YAMLError

from routerbench.config import is_dense
from routerbench.moe.surgery import take_shape
from routerbench.parts import build_model, put_moe_layers
from routerbench.weights import Weights, head_prefixes, misfit, read_weights

OWN_ROUTER = re.compile(r"routerbench\.routers\.\w+\.\w+")
# Whatever a configuration says, no other file is opened and nothing fetched.
LOADS_NOTHING = {"pretrained": False, "checkpoint_path": ""}


def load_run(path: str | Path, weights: str | None = None) -> nn.Module:
    """The trained model of a finished run, with its MoE layers, in evaluation mode on the CPU.

    `path` is the folder of the run, of which `config.yaml` and the weights are read; `weights` is raw or ema
    (their average), and without it what the record ranks. A router is of this package, or of a module that is
    imported already. Raises ValueError for what is missing, damaged or does not fit.
    """
    config = _read_config(Path(path))
    trained = read_weights(Path(path), setting="path", choice=weights)
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
