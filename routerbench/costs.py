"""What a run costs: the axes on which routers are compared."""

import copy
import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from routerbench.moe.layer import MoE
from routerbench.moe.surgery import blank_images, images_routed_together, moe_layers


@dataclass(frozen=True)
class Costs:
    """Costs that are known before training."""

    flops_per_image: int
    """Of a forward pass in training over all slots, the empty ones too: matrix products and convolutions, a
    multiply-add being two; a router's sorting and iterations show in the measured speed alone."""
    flops_per_image_eval: int
    """The same in evaluation, which may have another capacity."""
    params_total: int
    params_active: int
    """Parameters that an average token meets: of an MoE layer, as many experts as it has slots per token, and
    no more than a token may have."""
    slots_per_token: float
    """Realised E*C/S in training, averaged over MoE layers; 0 without any."""
    slots_per_token_eval: float
    """The same in evaluation."""


def static_costs(model: nn.Module, image_size: tuple[int, int]) -> Costs:
    """Count on blank images, as many as one routing group holds, and on a copy without memory."""
    model = copy.deepcopy(model).to("meta")
    for layer in moe_layers(model).values():
        layer.backend = "bmm"  # the only one that counts every slot
    flops_eval = _flops(model.eval(), image_size)
    slots_eval = _slots_per_token(model)
    flops = _flops(model.train(), image_size)
    slots = _slots_per_token(model)
    idle = 0.0
    for layer, slots_of_layer in zip(moe_layers(model).values(), slots, strict=True):
        num_experts = layer.experts.num_experts
        of_experts = sum(parameter.numel() for parameter in layer.experts.parameters())
        met = min(slots_of_layer, layer.router.experts_per_token or num_experts)
        idle += of_experts * (1 - met / num_experts)
    total = sum(parameter.numel() for parameter in model.parameters())
    return Costs(
        flops_per_image=flops,
        flops_per_image_eval=flops_eval,
        params_total=total,
        params_active=round(total - idle),
        slots_per_token=sum(slots) / max(len(slots), 1),
        slots_per_token_eval=sum(slots_eval) / max(len(slots), 1),
    )


@dataclass(frozen=True)
class ExecutedFlops:
    """What a forward pass takes when empty slots are not computed."""

    fixed: int
    """Of one image without its experts."""
    per_slot: dict[str, int]
    """Of one filled slot, by MoE layer."""

    @classmethod
    def of(cls, model: nn.Module, image_size: tuple[int, int]) -> "ExecutedFlops":
        """Count on blank images in evaluation, as it is set now, and on a copy without memory."""
        model = copy.deepcopy(model).to("meta").eval()
        layers = moe_layers(model)
        for layer in layers.values():
            layer.backend = "bmm"
        flops, num_images = _flops(model, image_size), images_routed_together(model)
        per_slot = {name: _flops_per_slot(layer) for name, layer in layers.items()}
        of_slots = 0
        for name, layer in layers.items():
            assert layer.routing is not None
            of_slots += per_slot[name] * layer.routing.plan.filled.numel()
        return cls(flops - of_slots // num_images, per_slot)


def _flops_per_slot(layer: MoE) -> int:
    experts = layer.experts
    num_experts, width, _ = experts.w1.shape
    slots = experts.w1.new_empty(num_experts, 1, width)
    filled = torch.ones(num_experts, 1, 1, dtype=torch.bool, device="meta")
    with torch.no_grad():
        return count_flops(lambda: experts(slots, filled)) // num_experts


def _flops(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Of one image in a forward pass, which also leaves a routing in every layer."""
    num_images = images_routed_together(model)
    with torch.no_grad():
        return count_flops(lambda: model(blank_images(model, image_size, num_images))) // num_images


def count_flops(run: Callable[[], object]) -> int:
    """FLOPs of the matrix products and convolutions that `run` executes, a multiply-add being two."""
    # The counter knows neither the CPU's fused attention nor grouped products, and would leave them out.
    grouped = getattr(torch.ops.aten, "_grouped_mm", None)
    further = {} if grouped is None else {grouped: _grouped_mm_flops}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=further) as counter:
        run()
    return counter.get_total_flops()


def _grouped_mm_flops(left: torch.Size, right: torch.Size, *_: Any, **__: Any) -> int:
    """Of (N, K) or (G, N, K) by (K, M) or (G, K, M); the rows or columns of one without G are shared out."""
    products = left[0] if len(left) == len(right) == 3 else 1
    return 2 * products * left[-2] * left[-1] * right[-1]


def _slots_per_token(model: nn.Module) -> list[float]:
    """Realised slots per token of each MoE layer."""
    plans = [layer.routing.plan for layer in moe_layers(model).values() if layer.routing]
    return [plan.gates.shape[-1] * plan.num_slots / plan.gates.shape[1] for plan in plans]


@dataclass(frozen=True)
class MemoryMeter:
    """Measures the peak memory of a run, beyond what the process held when the run began."""

    device: torch.device
    held_gib: float | None

    @classmethod
    def start(cls, device: torch.device) -> "MemoryMeter":
        """Forget the peak of what ran before in this process."""
        gc.collect()  # a model in a cycle would count for the next run
        if device.type == "cuda":
            torch._C._cuda_clearCublasWorkspaces()  # which the run before took, and this one would not
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            return cls(device, torch.cuda.memory_allocated(device) / 2**30)
        try:
            # What the run before freed would be used again without a trace: back to the system with it.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux with glibc, or not permitted
            return cls(device, None)
        return cls(device, _resident_gib("VmRSS"))

    def forget(self) -> None:
        """Forget the peak so far, as of what was tried before the run."""
        MemoryMeter.start(self.device)  # the peak is the process's; what it held is of the first start

    def peak_gib(self) -> float | None:
        """Peak since the start in GiB: allocated on a GPU, resident on Linux, unknown elsewhere."""
        if self.held_gib is None:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30 - self.held_gib
        return max(0.0, _resident_gib("VmHWM") - self.held_gib)


def _resident_gib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 2**20
