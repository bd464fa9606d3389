"""Surgery: which blocks of a timm model get MoE layers, and putting them in."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from routerbench.checks import check_one_of
from routerbench.config import PLACEMENTS
from routerbench.moe.dense_mlp import read_mlp, why_not
from routerbench.moe.experts import Experts
from routerbench.moe.layer import ChannelsFirst, MoE, Skip
from routerbench.moe.router import Router

Placement = str | Sequence[int]


def mlp_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks that hold an `mlp`, by name, in the order of the forward pass.

    What holds one inside a block or an attention, such as a position bias made by an MLP, is no block. Nor is
    one of class attention (CaiT, XCiT, VOLO): its MLP sees the class token alone, with nothing to route.
    A block of two MLPs, each after an attention (MaxViT, DaViT) or side by side, counts as two. MobileViT
    gives its MLPs every image as four, so that a group of one image is a quarter of it.
    """
    blocks: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = "attn" in name.split(".") or any(name.startswith(f"{block}.") for block in blocks)
        if isinstance(getattr(module, "mlp", None), nn.Module) and _numbers(name) and not inside:
            blocks[name] = module
    return {name: block for name, block in blocks.items() if not _attends_by_class(block)}


def place(names: Sequence[str], placement: Placement) -> list[int]:
    """Indices of the blocks, among those of these names, that `placement` chooses.

    A model is staged when its blocks stand in several numbered stages. In an isotropic one `last_2` is the
    last two odd blocks (V-MoE); in a staged one it is the last block of each of the last two stages
    (Videau et al. 2025). Raises ValueError for a placement that is unknown, or impossible in this model.
    """
    if not names:
        raise ValueError("the model has no block with an MLP to replace: take a ViT, a ConvNeXt, a Swin ...")
    if not isinstance(placement, str):
        return _listed(placement, len(names))
    check_one_of("placement", placement, PLACEMENTS)
    blocks = range(len(names))
    last_of_stage = _last_of_stage(names)
    staged = len(last_of_stage) > 1
    if placement == "stage" and not staged:
        raise ValueError("placement=stage needs a model in stages, such as a ConvNeXt: this one has none")
    choices: dict[str, Sequence[int]] = {
        "last_2": (last_of_stage if staged else blocks[1::2])[-2:],
        "every_2": blocks[1::2],
        "last_half": blocks[len(blocks) - len(blocks) // 2 :],
        "stage": last_of_stage,
        "none": [],
    }
    if not choices[placement] and placement != "none":
        raise ValueError(f"placement={placement} chooses no block of this model, which has {len(names)}")
    return list(choices[placement])


def replace_mlps(
    model: nn.Module,
    indices: Sequence[int],
    make_router: Callable[[int], Router],
    make_experts: Callable[[nn.Module], Experts],
    group: str | int,
    extra_skip: bool = False,
) -> None:
    """Replace the MLP of each chosen block by an MoE layer.

    `make_router` is given the width D, `make_experts` the MLP. `extra_skip` puts a skip around the depthwise
    convolution of the chosen blocks. Raises ValueError for a block where this is impossible.
    """
    blocks: list[tuple[str, Any]] = list(mlp_blocks(model).items())
    chosen = [blocks[index] for index in indices]
    for name, block in chosen:  # all of them, before the first is touched
        problem = why_not(block.mlp)
        if problem:
            raise ValueError(f"{name}: {problem}")
        if extra_skip and not _has_skippable_convolution(block):
            raise ValueError(
                f"extra_skip=true: {name} has no depthwise convolution that keeps the shape of its input: "
                "take a ConvNeXt, or extra_skip=false"
            )
    layers = []
    for _, block in chosen:
        dense = read_mlp(block.mlp)
        moe = MoE(make_router(dense.width), make_experts(block.mlp), group)
        layers.append(ChannelsFirst(moe) if dense.channels_first else moe)
    for (_, block), layer in zip(chosen, layers, strict=True):
        block.mlp = layer
        if extra_skip:
            block.conv_dw = Skip(block.conv_dw)


def moe_layers(model: nn.Module) -> dict[str, MoE]:
    """The MoE layers of a model by the name of their block, in the order of the forward pass."""
    return {
        name.partition(".mlp")[0]: module for name, module in model.named_modules() if isinstance(module, MoE)
    }


def images_routed_together(model: nn.Module) -> int:
    """As many images as the largest routing group of the model holds, 1 where it has no MoE layer."""
    return max((layer.images_per_group for layer in moe_layers(model).values()), default=1)


@torch.no_grad()
def take_shape(model: nn.Module, image_size: tuple[int, int]) -> None:
    """Send a blank image through, so that every parameter has its shape."""
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()(blank_images(model, image_size, 1))
    finally:
        for module, mode in training.items():
            module.training = mode


def blank_images(
    model: nn.Module, image_size: tuple[int, int], num_images: int
) -> Float[Tensor, "B channels H W"]:
    """Black images for this model, where it is and in its precision."""
    parameter = next(p for p in model.parameters() if not torch.nn.parameter.is_lazy(p))
    stem = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    channels = 3 if stem is None else stem.in_channels
    return torch.zeros(num_images, channels, *image_size, device=parameter.device, dtype=parameter.dtype)


def input_size(model: nn.Module) -> tuple[int, int]:
    """Height and width of the images that a timm model was made for."""
    embedding: Any = getattr(model, "patch_embed", None)
    if getattr(embedding, "img_size", None) is not None:
        return embedding.img_size
    described: Any = model
    return described.pretrained_cfg["input_size"][-2:]


def _attends_by_class(block: nn.Module) -> bool:
    return "ClassAtt" in type(getattr(block, "attn", None)).__name__


def _has_skippable_convolution(block: nn.Module) -> bool:
    conv = getattr(block, "conv_dw", None)
    return (
        isinstance(conv, nn.Conv2d)
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == (1, 1)
    )


def _listed(placement: Sequence[int], num_blocks: int) -> list[int]:
    indices = list(placement)
    for index in indices:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < num_blocks:
            raise ValueError(
                f"placement={indices} names block {index!r}: the blocks are 0 to {num_blocks - 1}"
            )
    if len(set(indices)) < len(indices):
        raise ValueError(f"placement={indices} names a block twice")
    return sorted(indices)


def _last_of_stage(names: Sequence[str]) -> list[int]:
    """Last block of each stage: `stages.2.blocks.1` is in stage 2, `blocks.1` in the only one.

    So Hiera, whose blocks stand in one row, counts as isotropic.
    """
    last: dict[int | None, int] = {}
    for index, name in enumerate(names):
        numbers = _numbers(name)
        last[numbers[0] if len(numbers) > 1 else None] = index
    return list(last.values())


def _numbers(name: str) -> list[int]:
    """Those that end the parts of a block's name: 2 and 1 for `stage2.1`; MLPs side by side have none."""
    block = re.sub(r"\.ffns\.\d+$", "", name)
    return [int(number) for number in re.findall(r"(\d+)(?:\.|$)", block)]
