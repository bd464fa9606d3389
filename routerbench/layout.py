"""How the tokens of an image lie in the MoE layers of a model: on which grid, after which others."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from routerbench.moe.surgery import moe_layers

Grid = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """How the tokens of an image lie."""

    grid: Grid
    """Rows and columns of the patches, in the order of the tokens; one row where they lie in no grid."""
    num_prefix: int
    """Class token and registers, which come before the patches."""


@contextmanager
def layouts_seen(model: nn.Module) -> Iterator[dict[str, Layout]]:
    """Inside, how the tokens of each MoE layer lie, by its block, as soon as the model has been called."""
    layouts: dict[str, Layout] = {}
    size: list[torch.Size] = []

    def see_images(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        size[:] = [inputs[0].shape]

    def see_tokens(name: str) -> Any:
        def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            layouts[name] = _layout(model, name, inputs[0].shape, size[0])

        return see

    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(see_images).remove)
        for name, layer in moe_layers(model).items():
            hooks.callback(layer.register_forward_pre_hook(see_tokens(name)).remove)
        yield layouts


def _layout(model: nn.Module, name: str, tokens: torch.Size, images: torch.Size) -> Layout:
    if tokens[0] != images[0]:
        raise ValueError(
            f"{name} of this model sees {images[0]} images as {tokens[0]}: take a model whose MLPs see an "
            "image whole, such as a ViT or a ConvNeXt"
        )
    if len(tokens) == 4:
        return Layout((tokens[1], tokens[2]), 0)
    described: Any = model
    for num_prefix in dict.fromkeys((getattr(described, "num_prefix_tokens", 0), 0, 1)):  # PiT tells of none
        grid = _grid(described, tokens[1] - num_prefix, (images[2], images[3]))
        if grid is not None:
            return Layout(grid, num_prefix)
    return Layout((1, tokens[1]), 0)


def _grid(model: Any, num_patches: int, image: Grid) -> Grid | None:
    """Rows and columns of so many patches, row by row: those of the embedding, or as the image is shaped."""
    if getattr(model, "unroll", None) is not None:  # Hiera's tokens are in another order
        return None
    own = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if own is not None and math.prod(own) == num_patches:
        return own[0], own[1]
    rows = round(math.sqrt(num_patches * image[0] / image[1]))
    columns = num_patches // max(rows, 1)
    fits = rows * columns == num_patches and rows * image[1] == columns * image[0]
    return (rows, columns) if fits else None
