"""What every router of a model decides about given images, as arrays."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.evaluate import in_whole_groups
from routerbench.maps import expert_of
from routerbench.moe.plan import Plan, SoftPlan
from routerbench.moe.surgery import moe_layers

Grid = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """How the tokens of an image lie."""

    grid: Grid
    """Rows and columns of the patches, in the order of the tokens; one row where they lie in no grid."""
    num_prefix: int
    """Class token and registers, which come before the patches."""


@dataclass(frozen=True)
class LayerRouting:
    """The plan of one MoE layer for B images of T tokens, E experts; `routerbench.moe.plan` says more."""

    gates: Float[np.ndarray, "B T E"]
    """How much each token leans to each expert; sums to 1 over experts."""
    share: Float[np.ndarray, "B T E"]
    """What a token has of each expert's slots: 1 is a slot, or an even share of mixtures."""
    expert: Int[np.ndarray, "B T"]
    """Of the experts that hold any of the token, the one with its largest gate; -1 where it is dropped."""
    first: Int[np.ndarray, "B T"]
    """The expert with the largest gate, whether it holds the token or not."""
    gate: Float[np.ndarray, "B T"]
    """That gate."""
    slots: Float[np.ndarray, "B T"]
    """Slots that the token fills, in parts where they are shared."""
    dropped: Bool[np.ndarray, "B T"]
    """Whether no slot holds any of the token."""
    grid: Grid
    """Rows and columns of the patches, which follow the prefix; one row where they lie in no grid."""
    num_prefix: int
    """Class token and registers, which come first."""
    dispatch: Float[np.ndarray, "B T E P"] | None
    """Soft: the share of each token in each slot, None of other routers."""
    combine: Float[np.ndarray, "B T E P"] | None
    """Soft: the share of each slot in each token's output."""


@torch.no_grad()
def routing_of(model: nn.Module, images: Tensor | NDArray[Any]) -> dict[str, LayerRouting]:
    """How the MoE layers route these images in evaluation, by the name of their block; empty if dense.

    `images`: `(B, 3, H, W)` as the model takes them, that is normalised, torch or numpy; they go through at
    once, so give few. The model is afterwards as it was. Raises ValueError for images of another shape and
    for a model whose MoE layers see an image in parts (MobileViT).
    """
    layers = moe_layers(model)
    batch = _as_taken(model, images)
    group = max((layer.images_per_group for layer in layers.values()), default=1)
    parts: dict[str, list[LayerRouting]] = {name: [] for name in layers}
    with left_as_is(model), layouts_seen(model) as layouts:
        for part, _ in in_whole_groups([(batch, torch.zeros(len(batch)).long())], group):
            model(part)
            for name, layer in layers.items():
                assert layer.routing is not None
                parts[name].append(_arrays(layer.routing.plan, len(part), layouts[name]))
    return {name: _joined(of_layer) for name, of_layer in parts.items()}


def _arrays(plan: Plan, num_images: int, layout: Layout) -> LayerRouting:
    gate, first = plan.gates.max(-1)
    of_plan = (plan.gates, plan.expert_share, expert_of(plan), first, gate, plan.slots_taken, plan.dropped)
    of_soft = (plan.dispatch_weight, plan.combine_weight) if isinstance(plan, SoftPlan) else ()
    dispatch, combine = [by_image(values, num_images) for values in of_soft] or (None, None)
    return LayerRouting(
        *(by_image(values, num_images) for values in of_plan),
        grid=layout.grid,
        num_prefix=layout.num_prefix,
        dispatch=dispatch,
        combine=combine,
    )


def _joined(parts: list[LayerRouting]) -> LayerRouting:
    """The parts of a batch behind each other."""
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(LayerRouting)
        if isinstance(getattr(parts[0], field.name), np.ndarray)
    }
    return replace(parts[0], **arrays)


def by_image(values: Tensor, num_images: int) -> NDArray[Any]:
    """(G, S, ...) of groups -> (B, T, ...) of images."""
    return values.reshape(num_images, -1, *values.shape[2:]).cpu().numpy()


@contextmanager
def left_as_is(model: nn.Module) -> Iterator[None]:
    """Inside, the model evaluates; afterwards its mode, and what its layers last decided, are as before."""
    training = {module: module.training for module in model.modules()}
    latest = {layer: layer.routing for layer in moe_layers(model).values()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for layer, routing in latest.items():
            layer.routing = routing


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


def _as_taken(model: nn.Module, images: Tensor | NDArray[Any]) -> Tensor:
    """The images on the device and in the precision of the model."""
    parameter = next(model.parameters())
    batch = torch.as_tensor(images).to(parameter.device, parameter.dtype)
    if batch.dim() != 4 or not len(batch):
        raise ValueError(f"images={tuple(batch.shape)} is no batch of images: give (B, 3, H, W), normalised")
    return batch
