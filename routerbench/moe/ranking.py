"""Ranking: the largest of scores, and always the same ones."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

FEW = 3  # so many searches are cheaper than one sort


def largest(scores: Float[Tensor, "..."], count: int, dim: int) -> Int[Tensor, "..."]:
    """Indices of the `count` largest along `dim`, largest first; of equals, the lower index first."""
    if count <= FEW:
        return _by_searches(scores, count, dim)
    if scores.dtype == torch.float32:
        # topk leaves the order of equals open, hence numbers without any.
        return _distinct(scores, dim).topk(count, dim).indices
    return scores.sort(dim=dim, descending=True, stable=True).indices.narrow(dim, 0, count)


def _by_searches(scores: Float[Tensor, "..."], count: int, dim: int) -> Int[Tensor, "..."]:
    found = [scores.max(dim, keepdim=True).indices]
    if count > 1:
        scores = scores.clamp(min=torch.finfo(scores.dtype).min)  # what is found is -inf from there on
    while len(found) < count:
        scores = scores.scatter(dim, found[-1], -math.inf)
        found.append(scores.max(dim, keepdim=True).indices)
    return torch.cat(found, dim)


def _distinct(scores: Float[Tensor, "..."], dim: int) -> Int[Tensor, "..."]:
    """Whole numbers in the order of scores in single precision; of equals, the lower index has the larger."""
    # A NaN has two signs, and is the largest with both. Else the bits of a float are a sign and a magnitude,
    # which as a number grows with the float's.
    bits = scores.nan_to_num(math.inf, math.inf, -math.inf).view(torch.int32)
    sign = bits >> 31  # 0 or -1
    bits = (bits ^ (sign & 0x7FFFFFFF)) - sign
    index = torch.arange(scores.shape[dim], device=scores.device)
    shape = [1] * scores.dim()
    shape[dim] = -1
    return bits.long().bitwise_left_shift_(32).sub_(index.view(shape))
