"""Backends: ways to compute one and the same layer."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from routerbench.checks import check_one_of
from routerbench.moe.expert_loop import ExpertLoop
from routerbench.moe.experts import Experts
from routerbench.moe.plan import Plan

Backend = Callable[[Plan, Experts, Float[Tensor, "G S D"]], Float[Tensor, "G S D"]]


def bmm(plan: Plan, experts: Experts, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S D"]:
    """All slots, empty ones too, in one batched product for all experts; made of plain operations."""
    return plan.combine(experts(plan.dispatch(tokens), plan.filled.transpose(0, 1)))


def loop(plan: Plan, experts: Experts, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S D"]:
    """The filled slots, one expert after the other; it must ask how many they are, so it is for CPUs."""
    seats = plan.seats(tokens)
    counts = seats.counts.tolist()
    weight, index = seats.weight[: sum(counts)], seats.index[: sum(counts)]
    assert isinstance(experts.act, nn.GELU)
    dtype, approximate = product_dtype(seats.rows), experts.act.approximate
    parameters = (experts.w1, experts.b1, experts.w2, experts.b2)
    with torch.autocast(tokens.device.type, enabled=False):
        return plan.home(ExpertLoop.apply(seats.rows, weight, index, counts, dtype, approximate, *parameters))


def grouped(plan: Plan, experts: Experts, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S D"]:
    """The filled slots by grouped products, as many at once as torch's `F.grouped_mm` makes of them."""
    seats = plan.seats(tokens)
    slots = seats.rows.index_select(0, seats.index)
    # What is left over is empty, weighs nothing, and must not carry what is no number into an expert.
    num_filled = seats.counts.sum()
    empty = torch.arange(len(slots), device=slots.device) >= num_filled
    slots = slots.to(product_dtype(slots)).masked_fill(empty[:, None], 0)
    counts = seats.counts.clone()
    counts[-1] += len(slots) - num_filled
    offsets = counts.cumsum(0, dtype=torch.int32)
    expert = torch.arange(len(counts), device=slots.device).repeat_interleave(counts, output_size=len(slots))

    def affine(x: Float[Tensor, "M I"], weight: Tensor, bias: Tensor | None) -> Float[Tensor, "M O"]:
        product = F.grouped_mm(x, weight.to(x.dtype), offs=offsets)
        return product if bias is None else product + bias.to(x.dtype).index_select(0, expert)

    hidden = affine(slots, experts.w1, experts.b1)
    gate = hidden if experts.wg is None else affine(slots, experts.wg, experts.bg)
    hidden = experts.drop1(experts.act(gate) if experts.wg is None else experts.act(gate) * hidden)
    weighted = experts.drop2(affine(hidden, experts.w2, experts.b2)) * seats.weight[:, None]
    return plan.home(weighted.new_zeros(seats.rows.shape).index_add_(0, seats.index, weighted))


def one_hot(plan: Plan, experts: Experts, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S D"]:
    """The definition (GShard; Liu et al. 2024): products with the dense dispatch and combine tensors."""
    dispatch, combine = plan.dense()
    slots = torch.einsum("gsec,gsd->egcd", dispatch.to(tokens.dtype), tokens)
    out = experts(slots.flatten(1, 2), plan.filled.transpose(0, 1)).view(slots.shape)
    return torch.einsum("gsec,egcd->gsd", combine, out.to(combine.dtype))


BACKENDS: dict[str, Backend] = {"bmm": bmm, "loop": loop, "grouped": grouped, "one_hot": one_hot}


def default_backend(experts: Experts, device: torch.device) -> str:
    """`loop` on a CPU, where that knows the experts, `bmm` otherwise, under autocast and when compiling."""
    if device.type != "cpu" or low_precision_on_cpu(device) or torch.compiler.is_compiling():
        return "bmm"
    return "bmm" if why_not("loop", experts, device) else "loop"


def low_precision_on_cpu(device: torch.device) -> bool:
    """Whether autocast is on, on a CPU: there a kernel is built and kept for every number of filled slots."""
    return device.type == "cpu" and torch.is_autocast_enabled("cpu")


def check_backend(name: str, experts: Experts, device: torch.device) -> None:
    """Raise ValueError for a backend that is unknown, or cannot compute these experts on this device."""
    check_one_of("backend", name, tuple(BACKENDS))
    problem = why_not(name, experts, device)
    if problem:
        raise ValueError(f"backend={name} {problem}: take backend=bmm")


def why_not(name: str, experts: Experts, device: torch.device) -> str | None:
    """Why this backend cannot compute these experts on this device; None when it can."""
    if name not in ("loop", "grouped"):
        return None
    if experts.hidden_norm is not None:
        norm = type(experts.hidden_norm).__name__
        return f"knows no norm between the layers of experts, and these have {norm}"
    if name == "grouped":
        return _why_not_grouped(experts)
    if type(experts.act) is not nn.GELU:
        return f"knows no activation but GELU, and these experts have {type(experts.act).__name__}"
    if experts.wg is not None:
        return "knows no gated experts"
    if experts.drop1.p or experts.drop2.p:
        return "knows no dropout in experts"
    if device.type not in ("cpu", "meta"):  # models are checked on the meta device
        return f"is for CPUs, and this is {device.type}"
    return None


def _why_not_grouped(experts: Experts) -> str | None:
    if experts.w1.dtype == torch.float64:
        return "knows no double precision"
    width, hidden = experts.w1.shape[1:]
    if width % 8 or hidden % 8:  # rows of 16 bytes in half precision
        return f"takes multiples of 8 for widths, and these experts have {width} and {hidden}"
    return None


def product_dtype(rows: Float[Tensor, "R D"]) -> torch.dtype:
    """The precision in which autocast would take the rows' products."""
    device = rows.device.type
    # The meta device knows no autocast.
    known = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    # Nor does autocast touch double precision.
    return torch.get_autocast_dtype(device) if known and rows.dtype != torch.float64 else rows.dtype
