"""What a run takes on each GPU of a layout, on paper: memory, and bytes sent in a step (docs/scaling.md)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from routerbench.costs import Costs, static_costs
from routerbench.moe.surgery import blank_images, images_routed_together, moe_layers, take_shape
from routerbench.parts import build_model, optimizer_and_scheduler, put_moe_layers, verify

FP32 = 4  # bytes of parameters, of their gradients and of what is averaged


@dataclass(frozen=True)
class Layout:
    """How many ranks an axis of the mesh has."""

    data: int
    shard: int
    expert: int

    @property
    def num_ranks(self) -> int:
        return self.data * self.shard * self.expert

    def __str__(self) -> str:
        return " x ".join(f"{axis} {size}" for axis, size in vars(self).items() if size > 1) or "1 process"


@dataclass(frozen=True)
class Anatomy:
    """What of a model decides its footprint, whatever the layout."""

    costs: Costs
    params_dense: int
    params_experts: int
    params_block: int
    """Parameters of the largest block."""
    optimizer_bytes: float
    """Of the optimizer's state, for each parameter."""
    kept_per_image: float
    """Bytes that autograd keeps of a forward pass for the backward pass."""
    slots_per_image: float
    """Elements of all slots of all MoE layers: slots times width."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one GPU; its traffic is what it sends in a step, which is what it receives."""

    layout: Layout
    parameters: float
    gradients: float
    optimizer: float
    copies: float
    """Of the parameters in low precision, and of those gathered from the other shards."""
    activations: float
    all_to_all: float
    all_reduce: float
    all_gather: float
    """With the reduce-scatter of the gradients."""

    @property
    def memory(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.copies + self.activations


def footprint(anatomy: Anatomy, layout: Layout, config: DictConfig) -> Footprint:
    """The formulas of docs/scaling.md."""
    data, shard, expert = layout.data, layout.shard, layout.expert
    parts, bytes_of = config.optim.accumulation_steps, FP32 if config.precision == "fp32" else 2
    images = config.batch_size / layout.num_ranks  # of a GPU in a step
    of_dense, of_experts = anatomy.params_dense / shard, anatomy.params_experts / shard / expert
    held = of_dense + of_experts
    low_precision = 0.0 if config.precision == "fp32" else 2 * held * shard
    gathered = FP32 * anatomy.params_block if shard > 1 else 0.0
    whole_gradients = held * shard if shard > 1 and parts > 1 else held  # they are cut with the last part
    return Footprint(
        layout,
        parameters=FP32 * held,
        gradients=FP32 * whole_gradients,
        optimizer=anatomy.optimizer_bytes * held,
        copies=low_precision + gathered,
        activations=anatomy.kept_per_image * images / parts,
        all_to_all=4 * (expert - 1) / expert * bytes_of * anatomy.slots_per_image * images,
        all_reduce=FP32 * (_ring(data * expert) * of_dense + _ring(data) * of_experts),
        all_gather=FP32 * (shard - 1) * held * (2 * parts + 1),
    )


def _ring(num_ranks: int) -> float:
    """What each rank sends in an all-reduce, over the size of what is reduced."""
    return 2 * (num_ranks - 1) / num_ranks


def anatomy(config: DictConfig) -> Anatomy:
    """Of the configured model, which is built without memory, with the classes that timm has it for.

    Raises ValueError for a configuration that is none.
    """
    verify(config)
    size = (config.data.image_size, config.data.image_size)
    described: Any = timm.models.get_pretrained_cfg(config.model.name)
    with torch.device("meta"):
        model = build_model(config, num_classes=getattr(described, "num_classes", 1000))
        put_moe_layers(model, config)
        take_shape(model, size)
        layers = moe_layers(model)
        for layer in layers.values():
            layer.backend = "bmm"
        costs = static_costs(model, size)
        kept = _kept_per_image(model, size, 2 if config.precision != "fp32" else FP32)
        optimizer_bytes = _optimizer_bytes(model, config)
    experts = sum(p.numel() for layer in layers.values() for p in layer.experts.parameters())
    blocks = [block for name, block in model.named_modules() if name in layers] or [model]
    slots = sum((_slot_elements(layer) / layer.images_per_group for layer in layers.values()), 0.0)
    return Anatomy(
        costs,
        costs.params_total - experts,
        experts,
        max(sum(p.numel() for p in block.parameters()) for block in blocks),
        optimizer_bytes,
        kept,
        slots,
    )


def _slot_elements(layer: Any) -> int:
    plan = layer.routing.plan
    return plan.filled.shape[1:].numel() * layer.experts.w1.shape[1]


def _optimizer_bytes(model: nn.Module, config: DictConfig) -> float:
    """Bytes of state for each parameter, by a step of the optimizer."""
    optimizer, _ = optimizer_and_scheduler(model, config.optim, config.epochs, steps_per_epoch=2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.device("cpu"):  # torch 2.11 reads the count of steps, which it makes on this device
        optimizer.step()
    state = [v for of_one in optimizer.state.values() for v in of_one.values() if isinstance(v, Tensor)]
    return sum(v.nbytes for v in state) / sum(parameter.numel() for parameter in model.parameters())


def _kept_per_image(model: nn.Module, image_size: tuple[int, int], bytes_of_float: int) -> float:
    num_images = images_routed_together(model)
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in known:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FusedAttention():
        model(blank_images(model, image_size, num_images))
    sizes = (t.numel() * (bytes_of_float if t.is_floating_point() else t.itemsize) for t in kept.values())
    return sum(sizes) / num_images


class FusedAttention(TorchFunctionMode):
    """Inside, attention keeps what a fused kernel keeps: its inputs, its output, no matrix of weights."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """Without a backward pass, of which nothing is asked."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out
