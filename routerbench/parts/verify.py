"""A configuration held against what can run, before anything long starts."""

from typing import Any

import torch
from omegaconf import DictConfig
from timm.layers import to_2tuple
from torch import nn

from routerbench.checks import check_one_of
from routerbench.config import check, is_dense
from routerbench.device import choose_device
from routerbench.fewshot import check_features
from routerbench.moe.backends import BACKENDS, why_not
from routerbench.moe.experts import check_options
from routerbench.moe.surgery import PLACEMENTS, mlp_blocks, moe_layers, take_shape
from routerbench.parallel import why_not as why_not_parallel
from routerbench.parts.data import made
from routerbench.parts.model import build_model, checkpoint_activations, expert_init_of, put_moe_layers
from routerbench.parts.recipe import optimizer_and_scheduler, task_loss
from routerbench.ranks import num_ranks
from routerbench.weights import RESIZE

# Of an epoch, before the data say how many.
MANY_STEPS = 1_000_000


def verify(config: DictConfig) -> None:
    """Refuse what cannot run, on a model without weights; raises ValueError in one line."""
    check(config)
    if config.expert_init is not None or not is_dense(config):  # a dense run may say null
        check_options(expert_init_of(config), config.expert_mlp_ratio, config.expert_dropout)
    _check_start(config)
    if isinstance(config.placement, str):  # of a dense run too, which does not look at it
        check_one_of("placement", config.placement, PLACEMENTS)
    if not config.runtime.results:  # the folder in which the command happens to run
        raise ValueError("runtime.results= is empty: give a folder, such as results")
    device = choose_device(config.runtime.device)
    check_one_of("runtime.backend", config.runtime.backend, ("auto", *BACKENDS))
    made("augment", config.augment)
    task_loss(config)
    with torch.device("meta"):
        backbone = build_model(config, num_classes=2)
    problem = why_not_parallel(backbone)
    if problem and num_ranks() > 1:
        raise ValueError(
            f"model.name={config.model.name} cannot be trained by {num_ranks()} processes: {problem}"
        )
    _check_images_fit(backbone, config.model.name, config.data.image_size)
    optimizer_and_scheduler(backbone, config.optim, config.epochs, MANY_STEPS)
    for probe in {"fewshot", "linear_probe"} & set(config.eval):
        check_features(backbone, config.model.name, config.data.image_size, probe)
    if config.runtime.activation_checkpointing:
        checkpoint_activations(backbone, config.model.name)
    if not is_dense(config) and not mlp_blocks(backbone):
        raise ValueError(
            f"model.name={config.model.name} has no block with an MLP to replace: take a ViT, a ConvNeXt, "
            "a Swin ..., or router=dense"
        )
    with torch.device("meta"):
        put_moe_layers(backbone, config)
    for layer in moe_layers(backbone).values():
        problem = why_not(config.runtime.backend, layer.experts, device)
        if problem:
            raise ValueError(f"runtime.backend={config.runtime.backend} {problem}: take auto or bmm")


def _check_start(config: DictConfig) -> None:
    check_one_of("model.resize", config.model.resize, tuple(RESIZE))
    if config.model.new_head and config.model.weights is None:
        raise ValueError(
            "model.new_head=true means nothing without model.weights, for every head is new then"
        )
    if config.model.resize != "bicubic" and config.model.weights == "pretrained":
        raise ValueError(
            f"model.resize={config.model.resize} is not for model.weights=pretrained, which timm resizes: "
            "take bicubic"
        )


def _check_images_fit(model: nn.Module, name: str, image_size: int) -> None:
    # A patch embedding leaves out, without a word, what is beyond its last whole patch.
    embedding = getattr(model, "patch_embed", None)
    patch: Any = to_2tuple(getattr(embedding, "patch_size", 1))
    stride: Any = getattr(getattr(embedding, "proj", None), "stride", patch)
    side = min(patch[0], stride[0])  # PVTv2's patches overlap
    if image_size % side:
        raise ValueError(
            f"model.name={name} cannot take data.image_size={image_size}: its patches are {side} x {side}, "
            "so give a multiple of that"
        )
    try:
        take_shape(model, (image_size, image_size))
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"model.name={name} cannot take data.image_size={image_size}: {reason}") from error
