"""A configuration held against what can run, before anything long starts."""

from typing import Any

import torch
from omegaconf import DictConfig
from timm.layers import to_2tuple
from torch import nn

from routerbench.config import check, is_dense
from routerbench.device import choose_device
from routerbench.fewshot import check_features
from routerbench.moe.backends import why_not
from routerbench.moe.surgery import mlp_blocks, moe_layers, take_shape
from routerbench.parallel import why_not as why_not_parallel
from routerbench.parts.data import made
from routerbench.parts.model import build_model, checkpoint_activations, put_moe_layers
from routerbench.parts.recipe import optimizer_and_scheduler
from routerbench.ranks import num_ranks

# Of an epoch, before the data say how many.
MANY_STEPS = 1_000_000


def verify(config: DictConfig) -> None:
    """Refuse what cannot run, on a model without weights; raises ValueError in one line."""
    check(config)
    device = choose_device(config.runtime.device)
    made("augment", config.augment)
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
