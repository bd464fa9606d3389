"""Experts: E MLPs in stacked tensors."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Experts(nn.Module):
    """E two-layer MLPs of width D and hidden width H, with biases, each applied to its own slots.

    Every expert starts on its own draw (Xavier uniform, as V-MoE's kernels), biases at zero.
    `hidden_norm` stands between activation and second layer, where ConvNeXt V2 has its response norm.
    """

    def __init__(
        self,
        num_experts: int,
        width: int,
        hidden: int,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        dropout: float = 0.0,
        hidden_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.w1 = nn.Parameter(torch.empty(num_experts, width, hidden))
        self.b1 = nn.Parameter(torch.zeros(num_experts, hidden))
        self.w2 = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.b2 = nn.Parameter(torch.zeros(num_experts, width))
        for weight in (*self.w1, *self.w2):
            nn.init.xavier_uniform_(weight)
        self.act = act_layer()
        self.hidden_norm = hidden_norm
        self.drop1 = nn.Dropout(dropout)
        self.drop2 = nn.Dropout(dropout)

    def forward(
        self, slots: Float[Tensor, "E N D"], filled: Bool[Tensor, "E G C"] | None = None
    ) -> Float[Tensor, "E N D"]:
        """Each expert's MLP over its slots, N = G times C, the slots of a group contiguous.

        `filled` says which slots hold something; without it they all do, and are one group.
        """
        hidden = self.drop1(self.act(torch.baddbmm(self.b1[:, None], slots, self.w1)))
        if self.hidden_norm is not None:
            if filled is None:
                filled = slots.new_ones(slots.shape[0], 1, slots.shape[1], dtype=torch.bool)
            hidden = self.hidden_norm(hidden.unflatten(1, filled.shape[1:]), filled).flatten(1, 2)
        return self.drop2(torch.baddbmm(self.b2[:, None], hidden, self.w2))

    @classmethod
    def from_dense(cls, mlp: nn.Module, num_experts: int) -> "Experts":
        """Experts that all start as the block's own `mlp` (V-MoE's shared start; sparse upcycling).

        Takes timm's `Mlp`, `ConvMlp` and `GlobalResponseNormMlp`, with linear layers or 1 x 1 convolutions.
        Raises ValueError, with what is wrong, for an MLP that has no such form.
        """
        problem = why_not(mlp)
        if problem:
            raise ValueError(problem)
        dense: Any = mlp
        hidden, width = dense.fc1.weight.shape[:2]
        experts = cls(
            num_experts,
            width,
            hidden,
            act_layer=lambda: copy.deepcopy(dense.act),
            hidden_norm=_hidden_norm(dense, num_experts),
        ).to(device=dense.fc1.weight.device, dtype=dense.fc1.weight.dtype)
        # A ConvMlp drops between its layers alone.
        experts.drop1.p = dense.drop1.p if hasattr(dense, "drop1") else dense.drop.p
        experts.drop2.p = dense.drop2.p if hasattr(dense, "drop2") else 0.0
        with torch.no_grad():
            experts.w1.copy_(dense.fc1.weight.flatten(1).T)
            experts.b1.copy_(dense.fc1.bias)
            experts.w2.copy_(dense.fc2.weight.flatten(1).T)
            experts.b2.copy_(dense.fc2.bias)
        return experts


class ResponseNorm(nn.Module):
    """Global response normalisation of each expert over its slots of a group (ConvNeXt V2, Woo et al. 2023).

    The dense layer normalises over the positions of an image; an expert over those that its slots hold.
    """

    def __init__(self, num_experts: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(num_experts, 1, 1, hidden))
        self.bias = nn.Parameter(torch.zeros(num_experts, 1, 1, hidden))

    def forward(
        self, hidden: Float[Tensor, "E G C H"], filled: Bool[Tensor, "E G C"]
    ) -> Float[Tensor, "E G C H"]:
        """Scale every channel by its norm over the filled slots, relative to the mean over channels."""
        response = hidden.masked_fill(~filled[..., None], 0).norm(dim=2, keepdim=True)
        relative = response / (response.mean(-1, keepdim=True) + self.eps)
        return hidden + torch.addcmul(self.bias, self.weight, hidden * relative)


def why_not(mlp: nn.Module) -> str | None:
    """Why experts cannot stand in for this MLP, in one line; None when they can."""
    name = type(mlp).__name__
    if name not in ("Mlp", "ConvMlp", "GlobalResponseNormMlp"):
        return (
            f"experts cannot replace an MLP of class {name}: only timm's Mlp, ConvMlp, GlobalResponseNormMlp"
        )
    dense: Any = mlp
    if dense.fc1.bias is None or dense.fc2.bias is None:
        return f"experts cannot replace this {name}: it has no biases"
    if not isinstance(getattr(dense, "norm", None), nn.Identity | None):
        return f"experts cannot replace this {name}: it has a norm between its layers"
    return None


def _hidden_norm(dense: Any, num_experts: int) -> nn.Module | None:
    if not hasattr(dense, "grn"):
        return None
    norm = ResponseNorm(num_experts, dense.grn.weight.shape[0], dense.grn.eps)
    with torch.no_grad():
        norm.weight.copy_(dense.grn.weight)
        norm.bias.copy_(dense.grn.bias)
    return norm
