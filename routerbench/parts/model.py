"""From a configuration to its model: backbone, MoE layers, and the weights that it starts from."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from timm.utils.random import random_seed
from torch import nn

from routerbench.build import build_backbone, configured_router
from routerbench.config import expert_init_of, is_dense
from routerbench.moe.experts import Experts
from routerbench.moe.router import Router
from routerbench.moe.surgery import mlp_blocks, place, replace_mlps, take_shape
from routerbench.weights import (
    Weights,
    check_fit,
    expert_key,
    read_weights,
    with_new_head,
    with_positions_of,
)


def build_model(config: DictConfig, num_classes: int, **further: Any) -> nn.Module:
    """The backbone, without MoE layers; raises ValueError for a model that is unknown or impossible."""
    of_model: Any = OmegaConf.to_container(config.model.arguments)  # timm takes lists, not nodes
    arguments = {**of_model, **further}
    if config.model.drop_path_rate:  # not every timm model has it
        arguments["drop_path_rate"] = config.model.drop_path_rate
    return build_backbone(config.model.name, num_classes, config.data.image_size, **arguments)


def load_weights(config: DictConfig, num_classes: int) -> Weights | None:
    """What the model is to start from, None for random weights.

    Those of an MoE run hold its experts and routers; others are of the backbone. Raises ValueError for
    weights that are missing, damaged or those of another model.
    """
    source, name = config.model.weights, config.model.name
    if source is None:
        return None
    weights = _pretrained(config, num_classes) if source == "pretrained" else read_weights(Path(source))
    of_moe = expert_key(weights) is not None
    _check_experts(config, expert_key(weights))
    if config.model.new_head:
        random_seed(config.seed)
        weights = with_new_head(build_model(config, num_classes), weights)
    with torch.device("meta"):
        model = build_model(config, num_classes)
    weights = with_positions_of(model, weights, config.model.resize)
    if of_moe and not is_dense(config):
        name = f"{name} with router={config.router.name}"
        with torch.device("meta"):
            put_moe_layers(model, config)
            take_shape(model, (config.data.image_size, config.data.image_size))
    check_fit(model, weights, source=source, name=name)
    return weights


def start(config: DictConfig, num_classes: int, weights: Weights | None) -> tuple[nn.Module, list[int]]:
    """The configured model with these weights, and the indices of the blocks that have MoE layers."""
    model = build_model(config, num_classes)
    of_moe = weights is not None and expert_key(weights) is not None
    if weights is not None and not of_moe:
        model.load_state_dict(weights)
    blocks = put_moe_layers(model, config)
    if weights is not None and of_moe:
        model.load_state_dict(weights)
    return model, blocks


def put_moe_layers(model: nn.Module, config: DictConfig) -> list[int]:
    """Put the configured MoE layers in, and give back the indices of their blocks.

    Raises ValueError for a router or placement that is impossible in this model.
    """
    if is_dense(config):
        return []
    placement = config.placement if isinstance(config.placement, str) else list(config.placement)
    indices = place(list(mlp_blocks(model)), placement)
    make_experts = partial(
        Experts.from_dense,
        num_experts=config.num_experts,
        expert_init=expert_init_of(config),
        expert_mlp_ratio=config.expert_mlp_ratio,
        expert_dropout=config.expert_dropout,
    )
    replace_mlps(
        model,
        indices,
        partial(_router, config.router, config.num_experts),
        make_experts,
        config.group,
        config.extra_skip,
    )
    return indices


def checkpoint_activations(model: nn.Module, name: str) -> None:
    """Have the blocks computed again in the backward pass; raises ValueError where timm cannot."""
    described: Any = model
    try:
        described.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise ValueError(
            f"runtime.activation_checkpointing=true is not for model.name={name}: say false"
        ) from error


def _pretrained(config: DictConfig, num_classes: int) -> Weights:
    random_seed(config.seed)  # of a classifier for other classes
    try:
        return build_model(config, num_classes, pretrained=True).state_dict()
    except Exception as error:  # of the network, the hub or timm
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
        raise ValueError(
            f"model.weights=pretrained fails for model.name={config.model.name}: {reason}"
        ) from error


def _check_experts(config: DictConfig, of_experts: str | None) -> None:
    """Refuse a start of experts that these weights do not give."""
    if is_dense(config):
        return
    start = f"expert_init={config.expert_init} with model.weights={config.model.weights}"
    if of_experts and config.expert_init is not None:
        raise ValueError(f"{start}, which has experts ({of_experts}): say expert_init=null, which takes them")
    if not of_experts and config.expert_init is None:
        raise ValueError(f"{start}, which has no experts: say expert_init=upcycle, or independent")


def _router(config: DictConfig, num_experts: int, width: int) -> Router:
    """The configured router, which is refused by the name of a setting as it is typed."""
    try:
        return configured_router(config, width, num_experts)
    except ValueError as error:
        named = str(error).partition("=")[0]
        raise ValueError(f"router.{error}" if named in config else str(error)) from error
