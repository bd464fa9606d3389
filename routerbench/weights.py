"""Weights of a model in a file: read without running what is in it, held against a model, written whole."""

import hashlib
import inspect
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.models import load_state_dict
from torch import Tensor, nn

from routerbench.checks import check_one_of
from routerbench.data.folders import check_weights
from routerbench.parallel import whole_weights
from routerbench.ranks import rank
from routerbench.records import ranked_weights, read_record, replaced

FILE_NAME = "weights.safetensors"
FILES = {"raw": FILE_NAME, "ema": "weights_ema.safetensors"}
# Of position embeddings, in the words of `torch.nn.functional.interpolate`.
RESIZE = {
    "bicubic": {},  # timm's own way
    "zoom": {"interpolation": "bilinear", "antialias": False, "align_corners": True},
}

Weights = dict[str, Tensor]


def read_weights(path: Path, *, setting: str = "model.weights", choice: str | None = None) -> Weights:
    """The weights in a file, or in the folder of a finished run: those that `ranked_kind` chooses.

    Raises ValueError, which names the `setting`, for what is missing, damaged or holds more than tensors,
    such as code, which never runs.
    """
    file = _file(path, setting, choice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on pickles of other versions
            weights = load_state_dict(str(file), weights_only=True)
    except Exception as error:  # a damaged pickle can raise any
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise ValueError(
                f"{setting}={path} is damaged, or holds more than tensors, which could be code: save its "
                "weights as .safetensors"
            ) from None
        raise ValueError(
            f"{setting}={path} cannot be read as weights ({type(error).__name__}): give another file"
        ) from error
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{setting}={path} holds no weights by name: give the state_dict of a model")
    return weights


def checked_weights(folder: Path, record: dict[str, Any] | None, choice: str | None) -> Weights:
    """The weights of a run; raises ValueError for others than those of the record, where it says which."""
    kind = ranked_kind(folder, choice)
    file, other = folder / FILES[kind], next(name for name in FILES if name != kind)
    if choice is not None and not file.is_file() and (folder / FILES[other]).is_file():
        raise ValueError(f"weights={kind} is not what the run in {folder} left: take weights={other}")
    sums = (record or {}).get("provenance", {}).get("weights_sha256", {})
    if kind in sums and file.is_file() and sha256_of(file) != sums[kind]:
        raise ValueError(
            f"path={folder} has a {file.name} that is not the one that was written there (its checksum is "
            "another): bring it back, or train the run again"
        )
    return read_weights(folder, setting="path", choice=kind)


def ranked_kind(folder: Path, choice: str | None = None) -> str:
    """Which of a run's weights is meant, raw or their average ema; None: those that its record ranks.

    Raises ValueError for another choice, or a record that is damaged.
    """
    if choice is None:
        choice = ranked_weights(read_record(folder))
    check_one_of("weights", choice, tuple(FILES))
    return choice


def expert_key(weights: Weights) -> str | None:
    """The first key of an expert; None where these are weights of a model without MoE layers."""
    return next((key for key in weights if ".experts." in key), None)


def with_new_head(model: nn.Module, weights: Weights) -> Weights:
    """The weights, with the classifier of this freshly made model in place of their own."""
    head = head_prefixes(model)
    if not head:
        raise ValueError("model.new_head=true: timm does not say which layer of this model is its head")
    old = {key: value for key, value in weights.items() if not key.startswith(head)}
    return old | {key: value for key, value in model.state_dict().items() if key.startswith(head)}


def head_prefixes(model: nn.Module) -> tuple[str, ...]:
    """What the keys of a timm model's classifiers start with; nothing where it has none."""
    classifiers = getattr(model, "get_classifier", tuple)()
    heads = set(classifiers) if isinstance(classifiers, tuple | list) else {classifiers}
    return tuple(f"{name}." for name, module in model.named_modules() if module in heads)


def with_positions_of(model: nn.Module, weights: Weights, how: str) -> Weights:
    """The weights, with what is learnt of positions resized to the grid of this model.

    `bicubic` is timm's own way, `zoom` V-MoE's: bilinear with aligned corners. What timm cannot resize stays.
    Raises ValueError for a way that timm does not have for this model.
    """
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    other = [key for key in shapes if "pos" in key and key in weights and weights[key].shape != shapes[key]]
    resize = _resizer(model)
    if not other or resize is None:
        return weights
    if not RESIZE[how].keys() <= inspect.signature(resize).parameters.keys():
        raise ValueError(f"model.resize={how} is not for {type(model).__name__}: take bicubic")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on how timm's code does it
            resized = resize(dict(weights), model, **RESIZE[how])
    except (AssertionError, RuntimeError, ValueError):  # such as a class token that only one of them has
        return weights
    return weights | {key: resized[key] for key in other if key in resized}


def check_fit(model: nn.Module, weights: Weights, *, source: str, name: str) -> None:
    """Raise ValueError, with the first key that is wrong, unless these are the weights of this model.

    `source` and `name` are what the line says of the weights and the model.
    """
    problem = misfit(model, weights)
    if problem:
        raise ValueError(f"model.weights={source} does not fit model.name={name}: {problem}")


def misfit(model: nn.Module, weights: Weights) -> str | None:
    """What is wrong with the first key that is, where these are not the weights of this model."""
    expected = model.state_dict()
    of_experts = expert_key(weights)
    if of_experts and not expert_key(expected):
        return f"it has experts ({of_experts}), so give the weights of a dense run"
    for key, value in expected.items():
        problem = _problem(key, value, weights.get(key))
        if problem:
            of_head = key.startswith(head_prefixes(model))
            return f"{problem}; model.new_head=true starts a new one" if of_head else problem
    unexpected = next((key for key in weights if key not in expected), None)
    return f"it has {unexpected}, and the model has not" if unexpected else None


def write_weights(folder: Path, model: nn.Module, kind: str = "raw") -> str:
    """Write the weights of a model to the folder of its run, those of a kind, whole or not at all.

    All ranks have to, for each may hold a share of the weights; the first writes, and gives back the file's
    checksum. Raises UnwritableError.
    """
    # Each on its own: safetensors refuses tensors that share memory.
    weights = {key: value.clone().contiguous() for key, value in whole_weights(model).items()}
    if rank() == 0:
        with replaced(folder / FILES[kind]) as path:
            try:
                save_file(weights, path, metadata={"format": "pt"})
            except SafetensorError as error:  # all that can go wrong with weights of ours is the disk
                raise OSError(str(error)) from error
            return sha256_of(path)
    return ""


def sha256_of(file: Path) -> str:
    """The checksum of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def _file(path: Path, setting: str, choice: str | None) -> Path:
    if path.is_dir():
        file = path / FILES[ranked_kind(path, choice)]
        if not file.is_file():
            raise ValueError(f"{setting}={path} has no {file.name}: give the folder of a finished run")
        return file
    check_weights(path, setting)
    return path


def _resizer(model: nn.Module) -> Callable[..., Weights] | None:
    """What timm passes the weights of such a model through, which stands beside its class."""
    for kind in type(model).__mro__:
        found = getattr(sys.modules.get(kind.__module__), "checkpoint_filter_fn", None)
        if found is not None:
            return found
    return None


def _problem(key: str, expected: Tensor, weight: Tensor | None) -> str | None:
    if weight is None:
        return f"it has no {key}"
    if weight.shape != expected.shape:
        return f"its {key} is of shape {tuple(weight.shape)}, and the model's of {tuple(expected.shape)}"
    if expected.is_floating_point() and not _is_plain(weight):
        return f"its {key} is not of finite real numbers"
    return None


def _is_plain(weight: Tensor) -> bool:
    here = weight.layout == torch.strided and not weight.is_meta
    return here and weight.is_floating_point() and bool(weight.isfinite().all())
