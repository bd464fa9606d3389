"""What every router of a model decides about given images, as arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.evaluate import in_whole_groups
from routerbench.layout import Grid, Layout, layouts_seen
from routerbench.maps import expert_of
from routerbench.moe.plan import Plan, SoftPlan
from routerbench.moe.surgery import images_routed_together, moe_layers


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
    group = images_routed_together(model)
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


def _as_taken(model: nn.Module, images: Tensor | NDArray[Any]) -> Tensor:
    """The images on the device and in the precision of the model."""
    parameter = next(model.parameters())
    batch = torch.as_tensor(images).to(parameter.device, parameter.dtype)
    if batch.dim() != 4 or not len(batch):
        raise ValueError(f"images={tuple(batch.shape)} is no batch of images: give (B, 3, H, W), normalised")
    return batch
