"""From names to objects: routers by their yaml, backbones by timm's names, and both together."""

from functools import partial
from typing import Any

import timm
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import nn

import routerbench.models  # noqa: F401  its backbones become known to timm
from routerbench.checks import check_one_of, did_you_mean
from routerbench.config import check_experts, conf_dir
from routerbench.moe.experts import Experts
from routerbench.moe.router import Router
from routerbench.moe.surgery import Placement, input_size, mlp_blocks, place, replace_mlps, take_shape
from routerbench.schema import register_schema


def build_router(name: str, width: int, num_experts: int, **settings: Any) -> Router:
    """The router of `conf/router/<name>.yaml` for tokens of this width, with settings other than its own.

    Raises ValueError for an unknown router or setting, or a value out of range.
    """
    check_one_of("router", name, router_names())
    register_schema()  # by whose arithmetic the router's yaml refers to what must be equal for all routers
    root = OmegaConf.create(
        {**_shared_defaults(), "router": OmegaConf.load(conf_dir() / "router" / f"{name}.yaml")}
    )
    for key, value in settings.items():
        known = [str(setting) for setting in root.router if setting not in ("name", "_target_")]
        if key not in known:
            raise ValueError(
                f"{key}={value} is not a setting of router={name}, which has: {', '.join(known)}"
                f"{did_you_mean(key, known)}"
            )
        root.router[key] = value
    return configured_router(root.router, width, num_experts)


def router_names() -> list[str]:
    """The names of conf/router, but for that of the dense twin."""
    return sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml") if path.stem != "dense")


def configured_router(config: DictConfig, width: int, num_experts: int) -> Router:
    """The router that a composed `router` group describes."""
    try:
        method = get_class(config._target_)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"router._target_={config._target_} cannot be found: {reason}") from error
    if not issubclass(method, Router):
        raise ValueError(f"router._target_={config._target_} is not a Router")
    settings = {str(key): value for key, value in config.items() if key not in ("name", "_target_")}
    try:
        return method(width=width, num_experts=num_experts, **settings)
    except TypeError as error:
        raise ValueError(f"router={config.name} with {settings} cannot be built: {error}") from error


def sparsify(
    model: nn.Module,
    router: str,
    num_experts: int,
    placement: Placement,
    group: str | int = "image",
    *,
    expert_init: str = "shared",
    expert_mlp_ratio: float | None = None,
    expert_dropout: float | None = None,
    extra_skip: bool = False,
    **settings: Any,
) -> nn.Module:
    """Put MoE layers in place of the MLPs of a timm model, in place, and return the model.

    `router` and `settings` are those of `build_router`; `placement` is a name or a list of block indices.
    Experts start as the MLP that they replace, unless `expert_init` is independent; for that and the other
    settings of experts see `Experts.from_dense`. `extra_skip` puts a skip around the depthwise convolution of
    each chosen block of a ConvNeXt. Raises ValueError for what is unknown or impossible.
    """
    check_experts(expert_init, expert_mlp_ratio, expert_dropout)
    make_router = partial(build_router, router, num_experts=num_experts, **settings)
    make_router(width=1)  # its settings are refused even where no block is chosen
    indices = place(list(mlp_blocks(model)), placement)
    make_experts = partial(
        Experts.from_dense,
        num_experts=num_experts,
        expert_init=expert_init,
        expert_mlp_ratio=expert_mlp_ratio,
        expert_dropout=expert_dropout,
    )
    replace_mlps(model, indices, lambda width: make_router(width=width), make_experts, group, extra_skip)
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        take_shape(model, input_size(model))
    return model


def build_backbone(name: str, num_classes: int, image_size: int, **arguments: Any) -> nn.Module:
    """The timm model of this name for square images of this size.

    Raises ValueError for an unknown name, or arguments that the model does not take.
    """
    if not timm.is_model(name):
        raise ValueError(f"model.name={name} is not a timm model{did_you_mean(name, timm.list_models())}")
    fixed_size = timm.models.get_pretrained_cfg(name)
    if fixed_size is not None and fixed_size.fixed_input_size:
        arguments = {"img_size": image_size, **arguments}
    try:
        return timm.create_model(name, num_classes=num_classes, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"model.name={name} with {arguments} cannot be built: {error}") from error


def _shared_defaults() -> dict[str, Any]:
    train = OmegaConf.load(conf_dir() / "train.yaml")
    return {"slots_per_token": train.slots_per_token, "capacity_factor": train.capacity_factor}
