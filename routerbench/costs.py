"""What a run costs: the axes on which routers are compared."""

import platform
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
    """Operations of a forward pass as executed, empty slots included; a multiply-add is two."""
    params_total: int
    params_active: int
    """Parameters that an average token meets: of an MoE layer, as many experts as it has slots per token."""
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
        idle += of_experts * max(0.0, 1 - slots_per_token[-1] / num_experts)
    return Costs(
        flops_per_image=counter.get_total_flops() // num_images,
        params_total=total,
        params_active=round(total - idle),
        slots_per_token=sum(slots_per_token) / len(layers) if layers else 0.0,
    )


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak of what ran before in this process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif platform.system() == "Linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gib(device: torch.device) -> float | None:
    """Peak since the reset, in GiB: allocated on a GPU, resident on Linux, unknown elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if platform.system() != "Linux":
        return None
    status = Path("/proc/self/status").read_text()
    peak_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak_kib) / 2**20
