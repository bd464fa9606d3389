"""STUB. Backends: how the slots of a plan are computed."""

from collections.abc import Callable

import torch
from torch import Tensor

from routerbench.moe.experts import Experts
from routerbench.moe.plan import Plan


def bmm(plan: Plan, experts: Experts, tokens: Tensor) -> Tensor:
    """Slots and one batched GEMM."""
    slots = experts(plan.dispatch(tokens), plan.filled.transpose(0, 1))
    return plan.combine(slots)


def one_hot(plan: Plan, experts: Experts, tokens: Tensor) -> Tensor:
    """The definition (Liu et al. 2024): slow, plain."""
    dispatch, combine = plan.dense()
    slots = torch.einsum("gsec,gsd->egcd", dispatch.to(tokens.dtype), tokens)
    out = experts(slots.flatten(1, 2), plan.filled.transpose(0, 1)).unflatten(1, slots.shape[1:3])
    return torch.einsum("gsec,egcd->gsd", combine, out.to(combine.dtype))


BACKENDS: dict[str, Callable[[Plan, Experts, Tensor], Tensor]] = {"bmm": bmm, "one_hot": one_hot}
