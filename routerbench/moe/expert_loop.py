"""Experts one after the other: what belongs to one stays in the processor's cache while it is needed."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class ExpertLoop(torch.autograd.Function):
    """The MLP of each expert, with a GELU, over its own rows; those of one expert are contiguous.

    It keeps the pre-activations alone, and makes the activations again in the backward pass; gradients are
    written in place, and those of a hidden layer are never there for more than one expert. Products are
    taken in the precision of the rows, the gradients of the parameters given in that of the parameters.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "M D"],
        counts: Sequence[int],
        approximate: str,
        w1: Float[Tensor, "E D H"],
        b1: Float[Tensor, "E H"] | None,
        w2: Float[Tensor, "E H D"],
        b2: Float[Tensor, "E D"] | None,
    ) -> Float[Tensor, "M D"]:
        """`counts` are the numbers of rows of each expert, `approximate` is that of GELU."""
        hidden = rows.new_empty(len(rows), w1.shape[2])
        out = rows.new_empty(len(rows), w2.shape[2])
        active = hidden.new_empty(max(counts), hidden.shape[1])
        for x, h, y, v1, c1, v2, c2 in zip(
            *_split(counts, rows, hidden, out), *_unbind(len(counts), w1, b1, w2, b2), strict=True
        ):
            _affine(x, v1, c1, out=h)
            a = torch.ops.aten.gelu.out(h, approximate=approximate, out=active[: len(h)])
            _affine(a, v2, c2, out=y)
        ctx.save_for_backward(rows, hidden, w1, b1, w2, b2)
        ctx.counts, ctx.approximate = counts, approximate
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Float[Tensor, "M D"]
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the rows and the parameters."""
        rows, hidden, *parameters = ctx.saved_tensors
        grads = [None if parameter is None else torch.empty_like(parameter) for parameter in parameters]
        grad_rows = torch.empty_like(rows)
        w1, _, w2, _ = parameters
        active = hidden.new_empty(max(ctx.counts), hidden.shape[1])
        grad_active = torch.empty_like(active)
        gelu, gelu_backward = torch.ops.aten.gelu.out, torch.ops.aten.gelu_backward.grad_input
        for x, h, gy, gx, v1, v2, g1, gb1, g2, gb2 in zip(
            *_split(ctx.counts, rows, hidden, grad, grad_rows),
            *_unbind(len(ctx.counts), w1, w2, *grads),
            strict=True,
        ):
            a = gelu(h, approximate=ctx.approximate, out=active[: len(h)])
            _affine_backward(a, gy, g2, gb2)
            ga = torch.mm(gy, v2.to(gy.dtype).T, out=grad_active[: len(h)])
            gh = gelu_backward(ga, h, approximate=ctx.approximate, grad_input=a)
            _affine_backward(x, gh, g1, gb1)
            torch.mm(gh, v1.to(gh.dtype).T, out=gx)
        return grad_rows, None, None, *grads


def _split(counts: Sequence[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows of each expert, of each tensor."""
    return [tensor.split(counts) for tensor in tensors]


def _unbind(num_experts: int, *parameters: Tensor | None) -> list[Sequence[Any]]:
    """What belongs to each expert, of each parameter."""
    return [[None] * num_experts if each is None else each.unbind() for each in parameters]


def _affine(
    x: Float[Tensor, "M I"],
    weight: Float[Tensor, "I O"],
    bias: Float[Tensor, "O"] | None,
    out: Float[Tensor, "M O"],
) -> None:
    if bias is None:
        torch.mm(x, weight.to(x.dtype), out=out)
    else:
        torch.addmm(bias.to(x.dtype), x, weight.to(x.dtype), out=out)


def _affine_backward(
    x: Float[Tensor, "M I"],
    grad: Float[Tensor, "M O"],
    grad_weight: Float[Tensor, "I O"],
    grad_bias: Float[Tensor, "O"] | None,
) -> None:
    """Write the gradients of weight and bias."""
    if grad_weight.dtype == x.dtype:
        torch.mm(x.T, grad, out=grad_weight)
    else:
        grad_weight.copy_(x.T @ grad)
    if grad_bias is not None:
        grad_bias.copy_(grad.sum(0))
