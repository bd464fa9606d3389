"""What a run costs: the axes on which routers are compared."""

import gc
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from routerbench.moe.surgery import moe_layers, take_shape


@dataclass(frozen=True)
class Costs:
    """Costs that are known before training."""

    flops_per_image: int
    """Of a forward pass as executed, empty slots included: matrix products and convolutions, a multiply-add
    being two; a router's sorting and iterations show in the measured speed alone."""
    params_total: int
    params_active: int
    """Parameters that an average token meets: of an MoE layer, as many experts as it has slots per token, and
    no more than a token may have."""
    slots_per_token: float
    """Realised E*C/S, averaged over MoE layers; 0 without any."""


def static_costs(model: nn.Module, image_size: tuple[int, int]) -> Costs:
    """Count on blank images, as many as one routing group holds; works on the meta device too."""
    layers = list(moe_layers(model).values())
    num_images = max((layer.images_per_group for layer in layers), default=1)
    # The counter does not know the fused attention of the CPU, and would leave it out.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        take_shape(model, image_size, num_images)
    total = sum(parameter.numel() for parameter in model.parameters())
    slots_per_token, idle = [], 0.0
    for layer in layers:
        assert layer.routing is not None
        plan = layer.routing.plan
        num_experts = layer.experts.num_experts
        slots_per_token.append(num_experts * plan.num_slots / plan.gates.shape[1])
        of_experts = sum(parameter.numel() for parameter in layer.experts.parameters())
        met = min(slots_per_token[-1], layer.router.experts_per_token or num_experts)
        idle += of_experts * (1 - met / num_experts)
    return Costs(
        flops_per_image=counter.get_total_flops() // num_images,
        params_total=total,
        params_active=round(total - idle),
        slots_per_token=sum(slots_per_token) / len(layers) if layers else 0.0,
    )


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
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            return cls(device, torch.cuda.memory_allocated(device) / 2**30)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or not permitted
            return cls(device, None)
        return cls(device, _resident_gib("VmRSS"))

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
