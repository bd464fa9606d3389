"""Experts one after the other: what belongs to one stays in the processor's cache while it is needed."""

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# From this size on the C library maps memory anew for every tensor. Handed out in pages of 4 KiB, each when
# it is first written, that of the gradients of wide experts would take a quarter as long as the products.
MAPPED_BYTES = 32 * 2**20
HUGE_PAGE_BYTES = 2 * 2**20


class ExpertLoop(torch.autograd.Function):
    """From rows to the weighted sum of the experts' outputs for each: gather, MLP with a GELU, weigh, add up.

    It keeps the pre-activations and the outputs, and makes activations again in the backward pass; gradients
    are written in place, and those of a hidden layer are never there for more than one expert. Products are
    taken in `dtype`, the gradients of the parameters given in that of the parameters.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "R D"],
        weight: Float[Tensor, "M"],
        index: Int[Tensor, "M"],
        counts: Sequence[int],
        dtype: torch.dtype,
        approximate: str,
        w1: Float[Tensor, "E D H"],
        b1: Float[Tensor, "E H"] | None,
        w2: Float[Tensor, "E H D"],
        b2: Float[Tensor, "E D"] | None,
    ) -> Float[Tensor, "R D"]:
        """The first `counts[0]` of `index` are the rows that the first expert takes, and so on."""
        hidden = _huge(rows.new_empty(len(index), w1.shape[2], dtype=dtype))
        out = rows.new_empty(len(index), w2.shape[2], dtype=dtype)
        most = max(counts)
        active, taken = hidden.new_empty(most, hidden.shape[1]), rows.new_empty(most, rows.shape[1])
        weighted = weight.new_empty(most, rows.shape[1])
        home = weight.new_zeros(rows.shape)
        for i, w, h, y, v1, c1, v2, c2 in zip(
            *_split(counts, index, weight, hidden, out), *_unbind(len(counts), w1, b1, w2, b2), strict=True
        ):
            x = torch.index_select(rows, 0, i, out=taken[: len(i)])
            _affine(x.to(dtype), v1, c1, out=h)
            a = torch.ops.aten.gelu.out(h, approximate=approximate, out=active[: len(i)])
            _affine(a, v2, c2, out=y)
            home.index_add_(0, i, torch.mul(y, w[:, None], out=weighted[: len(i)]))
        ctx.save_for_backward(rows, weight, index, hidden, out, w1, b1, w2, b2)
        ctx.counts, ctx.approximate = counts, approximate
        return home

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Float[Tensor, "R D"]
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the rows, their weights and the parameters."""
        rows, weight, index, hidden, out, *parameters = ctx.saved_tensors
        grads = [
            _huge(torch.empty_like(parameter)) if needed else None  # no bias or frozen experts need none
            for parameter, needed in zip(parameters, ctx.needs_input_grad[6:], strict=True)
        ]
        grad_rows, grad_weight = torch.zeros_like(rows), torch.empty_like(weight)
        most = max(ctx.counts)
        active, taken = hidden.new_empty(most, hidden.shape[1]), rows.new_empty(most, rows.shape[1])
        grad_active, grad_taken = torch.empty_like(active), out.new_empty(most, rows.shape[1])
        grad_home, product = grad.new_empty(2, most, rows.shape[1])
        w1, _, w2, _ = parameters
        for i, w, h, y, gw, v1, v2, g1, gb1, g2, gb2 in zip(
            *_split(ctx.counts, index, weight, hidden, out, grad_weight),
            *_unbind(len(ctx.counts), w1, w2, *grads),
            strict=True,
        ):
            n = len(i)
            g = torch.index_select(grad, 0, i, out=grad_home[:n])
            torch.sum(torch.mul(g, y, out=product[:n]), 1, out=gw)
            gy = g.mul_(w[:, None]).to(y.dtype)
            a = torch.ops.aten.gelu.out(h, approximate=ctx.approximate, out=active[:n])
            _affine_backward(a, gy, g2, gb2)
            ga = torch.mm(gy, v2.to(gy.dtype).T, out=grad_active[:n])
            gh = torch.ops.aten.gelu_backward.grad_input(ga, h, approximate=ctx.approximate, grad_input=a)
            x = torch.index_select(rows, 0, i, out=taken[:n])
            _affine_backward(x.to(gh.dtype), gh, g1, gb1)
            gx = torch.mm(gh, v1.to(gh.dtype).T, out=grad_taken[:n])
            grad_rows.index_add_(0, i, gx.to(grad_rows.dtype))
        return grad_rows, grad_weight, None, None, None, None, *grads


def _split(counts: Sequence[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows of each expert, of each tensor."""
    return [tensor.split(counts) for tensor in tensors]


def _unbind(num_experts: int, *parameters: Tensor | None) -> list[Sequence[Any]]:
    """What belongs to each expert, of each parameter."""
    return [[None] * num_experts if each is None else each.unbind() for each in parameters]


def _affine(
    x: Float[Tensor, "N I"],
    weight: Float[Tensor, "I O"],
    bias: Float[Tensor, "O"] | None,
    out: Float[Tensor, "N O"],
) -> None:
    if bias is None:
        torch.mm(x, weight.to(x.dtype), out=out)
    else:
        torch.addmm(bias.to(x.dtype), x, weight.to(x.dtype), out=out)


def _affine_backward(
    x: Float[Tensor, "N I"],
    grad: Float[Tensor, "N O"],
    grad_weight: Float[Tensor, "I O"] | None,
    grad_bias: Float[Tensor, "O"] | None,
) -> None:
    """Write the gradients of weight and bias, those that are needed."""
    if grad_weight is not None and grad_weight.dtype == x.dtype:
        torch.mm(x.T, grad, out=grad_weight)
    elif grad_weight is not None:
        grad_weight.copy_(x.T @ grad)
    if grad_bias is not None:
        torch.sum(grad, 0, dtype=grad_bias.dtype, out=grad_bias)


def _huge(tensor: Tensor) -> Tensor:
    """The tensor, not yet written; if it is large, the system hands out its memory in huge pages."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux has it
    if advice is not None and tensor.nbytes >= MAPPED_BYTES:
        start = -(-tensor.data_ptr() // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        length = tensor.data_ptr() + tensor.nbytes - start
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)
    return tensor
