"""The optimizer, by timm, and which of a model's parameters decay at which rate."""

import inspect
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.optim.kron import Kron
from torch import nn
from torch.distributed.tensor import DTensor

from routerbench.checks import did_you_mean

# timm knows biases and norms by their one axis; those of stacked experts have more.
_STACKED = ("*.experts.b[12g]", "*.experts.hidden_norm.*")
_EXPERT_MATRICES = "*.experts.w[12g]"


def make_optimizer(
    model: nn.Module,
    *,
    name: str,
    lr: float,
    weight_decay: float,
    expert_weight_decay: float | None = None,
    head_weight_decay: float | None = None,
    layer_decay: float | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """timm's optimizer `name`; norms, biases, positions and class token do not decay.

    The matrices of experts and of the classifier decay as the others unless they have a rate of their own.
    `layer_decay` is the learning rate of a block over that of the next; experts are of their block.
    `arguments` are those of the optimizer alone, such as `betas`.
    Raises ValueError for an unknown name or argument, and for a model that does not tell what is asked of it.
    """
    known = [str(optimizer) for optimizer in list_optimizers()]
    if name not in known:
        raise ValueError(f"optim.name={name} is not a timm optimizer{did_you_mean(name, known)}")
    if get_optimizer_info(name).opt_class is Kron:
        raise ValueError(f"optim.name={name} keeps lists of tensors, which checkpoints do not: give another")
    arguments = {} if arguments is None else arguments
    _check_arguments(name, arguments)
    own_decay = _decay_of_experts(model, expert_weight_decay) | _decay_of_head(model, head_weight_decay)
    groups = _param_groups(model, weight_decay, layer_decay, own_decay)
    one_kernel: Any = {"fused": True} if _has_one_kernel(model, name) else {}
    try:
        optimizer = create_optimizer_v2(
            groups, opt=name, lr=lr, weight_decay=weight_decay, **one_kernel | dict(arguments)
        )
    except (ValueError, TypeError, AssertionError, IndexError, RuntimeError) as error:
        raise ValueError(f"optim.name={name} with {dict(arguments)} cannot be built: {error}") from error
    if getattr(optimizer, "is_second_order", False):
        raise ValueError(f"optim.name={name} asks for second derivatives, which are not taken: give another")
    return optimizer


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    try:
        takes = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    except (ImportError, ValueError, AssertionError) as error:
        raise ValueError(f"optim.name={name} cannot be used here: {error}") from error
    known = [key for key in takes if key not in ("params", "lr", "weight_decay")]
    for key, value in arguments.items():
        if key not in known:
            raise ValueError(
                f"optim.arguments.{key}={value} is not taken by optim.name={name}, which has: "
                f"{', '.join(known)}{did_you_mean(key, known)}"
            )


def _has_one_kernel(model: nn.Module, name: str) -> bool:
    """Whether this optimizer is one of torch's own that can take a step on these parameters in one kernel."""
    optimizer = get_optimizer_info(name).opt_class
    device = next(model.parameters()).device.type
    takes_it = isinstance(optimizer, type) and "fused" in inspect.signature(optimizer).parameters
    kinds = {isinstance(parameter, DTensor) for parameter in model.parameters()}
    return takes_it and device in ("cpu", "cuda") and len(kinds) == 1


def _decay_of_experts(model: nn.Module, rate: float | None) -> dict[int, float]:
    """The rate by the id of each matrix of experts."""
    if rate is None:
        return {}
    return {id(weight): rate for name, weight in model.named_parameters() if fnmatch(name, _EXPERT_MATRICES)}


def _decay_of_head(model: nn.Module, rate: float | None) -> dict[int, float]:
    """The rate by the id of each matrix of the classifier."""
    if rate is None:
        return {}
    described: Any = model
    if not hasattr(model, "get_classifier"):
        raise ValueError(
            f"optim.head_weight_decay={rate}: this model does not tell its classifier, give null"
        )
    return {id(weight): rate for weight in described.get_classifier().parameters() if weight.dim() > 1}


def _param_groups(
    model: nn.Module, weight_decay: float, layer_decay: float | None, own_decay: dict[int, float]
) -> list[dict[str, Any]]:
    """timm's groups, each of them split by the rates at which its parameters decay."""
    described: Any = model
    spared = set(described.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    names = (*sorted(spared), *_STACKED)
    if layer_decay is None:
        groups: Any = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=names)
    elif hasattr(model, "group_matcher"):
        groups = param_groups_layer_decay(
            model, weight_decay, no_weight_decay_list=names, layer_decay=layer_decay
        )
    else:
        raise ValueError(f"optim.layer_decay={layer_decay}: this model does not tell its layers, give null")
    split: dict[tuple[int, float | None], dict[str, Any]] = {}
    for index, group in enumerate(groups):
        for weight in group["params"]:
            rate = own_decay.get(id(weight), group["weight_decay"])
            empty = {**group, "weight_decay": rate, "params": []}
            split.setdefault((index, rate), empty)["params"].append(weight)
    return list(split.values())
