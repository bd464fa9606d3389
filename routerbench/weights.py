"""Weights of a model in a file: read without running what is in it, held against a model, written whole."""

import pickle
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models import load_state_dict
from torch import Tensor, nn

from routerbench.records import replaced

FILE_NAME = "weights.safetensors"
EMA_FILE_NAME = "weights_ema.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt")

Weights = dict[str, Tensor]


def read_weights(path: Path) -> Weights:
    """The weights in a file, or in the folder of a finished run.

    Raises ValueError for what is missing, damaged or holds more than tensors, such as code, which never runs.
    """
    file = _file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on pickles of other versions
            weights = load_state_dict(str(file), weights_only=True)
    except Exception as error:  # a damaged pickle can raise any
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise ValueError(
                f"model.weights={path} is damaged, or holds more than tensors, which could be code: save its "
                "weights as .safetensors"
            ) from None
        raise ValueError(
            f"model.weights={path} cannot be read as weights ({type(error).__name__}): give another file"
        ) from error
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"model.weights={path} holds no weights by name: give the state_dict of a model")
    return weights


def check_fit(model: nn.Module, weights: Weights, *, source: str, name: str) -> None:
    """Raise ValueError, with the first key that is wrong, unless these are the weights of this model.

    `source` and `name` are what the line says of the weights and the model.
    """
    problem = _misfit(model.state_dict(), weights)
    if problem:
        raise ValueError(f"model.weights={source} does not fit model.name={name}: {problem}")


def write_weights(folder: Path, model: nn.Module, file_name: str = FILE_NAME) -> None:
    """Write the weights of a model to the folder of its run, whole or not at all."""
    # Each on its own: safetensors refuses tensors that share memory.
    weights = {key: value.cpu().clone().contiguous() for key, value in model.state_dict().items()}
    with replaced(folder / file_name) as path:
        save_file(weights, path, metadata={"format": "pt"})


def _file(path: Path) -> Path:
    if path.is_dir():
        file = path / FILE_NAME
        if not file.is_file():
            raise ValueError(f"model.weights={path} has no {FILE_NAME}: give the folder of a finished run")
        return file
    if not path.is_file():
        raise ValueError(
            f"model.weights={path} does not exist: give pretrained, a file ({' '.join(SUFFIXES)}) or the "
            "folder of a run"
        )
    if path.suffix not in SUFFIXES:
        raise ValueError(f"model.weights={path} is no file of weights: give one of {' '.join(SUFFIXES)}")
    return path


def _misfit(expected: Weights, weights: Weights) -> str | None:
    of_experts = next((key for key in weights if ".experts." in key), None)
    if of_experts:
        return f"it has experts ({of_experts}), so give the weights of a dense run"
    for key, value in expected.items():
        if key not in weights:
            return f"it has no {key}"
        if weights[key].shape != value.shape:
            has, needs = tuple(weights[key].shape), tuple(value.shape)
            return f"its {key} is of shape {has}, and the model's of {needs}"
        if value.is_floating_point() and not _is_plain(weights[key]):
            return f"its {key} is not of finite real numbers"
    unexpected = next((key for key in weights if key not in expected), None)
    return f"it has {unexpected}, and the model has not" if unexpected else None


def _is_plain(weight: Tensor) -> bool:
    here = weight.layout == torch.strided and not weight.is_meta
    return here and weight.is_floating_point() and bool(weight.isfinite().all())
