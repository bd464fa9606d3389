"""Experts: E MLPs in stacked tensors."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from routerbench.checks import check_count
from routerbench.config import check_experts
from routerbench.moe.dense_mlp import DenseMlp, read_mlp


class Experts(nn.Module):
    """E two-layer MLPs of width D and hidden width H, each applied to its own slots.

    Every expert starts on its own draw (Xavier uniform, as V-MoE's kernels), biases at zero. `parameters` may
    leave out a bias, or add wg and bg: the activation is then that of a gating layer, by which the first
    layer is multiplied (Shazeer 2020). `hidden_norm` stands before the second layer, where ConvNeXt V2 has
    its response norm and EVA-02 a layer norm.
    """

    w1: nn.Parameter
    w2: nn.Parameter
    b1: Any  # a bias is a parameter, or None
    b2: Any
    wg: nn.Parameter | None
    bg: Any

    def __init__(
        self,
        num_experts: int,
        width: int,
        hidden: int,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        dropout: float = 0.0,
        hidden_norm: nn.Module | None = None,
        parameters: Sequence[str] = ("w1", "b1", "w2", "b2"),
    ) -> None:
        super().__init__()
        for name, count in (("num_experts", num_experts), ("width", width), ("hidden", hidden)):
            check_count(name, count)
        self.num_experts = num_experts
        self.mesh: DeviceMesh | None = None
        """The ranks that hold a share of the experts each; see `moe.expert_parallel`."""
        into, out = (width, hidden), (hidden, width)
        shapes = {"w1": into, "b1": into[1:], "w2": out, "b2": out[1:], "wg": into, "bg": into[1:]}
        for name, shape in shapes.items():
            there = name in parameters
            self.register_parameter(name, nn.Parameter(torch.zeros(num_experts, *shape)) if there else None)
        bound = math.sqrt(6 / (width + hidden))  # Xavier's, of each expert alone
        for weights in (self.w1, self.w2, self.wg):
            if weights is not None:
                nn.init.uniform_(weights, -bound, bound)
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
        hidden = _affine(slots, self.w1, self.b1)
        gate = hidden if self.wg is None else _affine(slots, self.wg, self.bg)
        hidden = self.drop1(self.act(gate) if self.wg is None else self.act(gate) * hidden)
        if self.hidden_norm is not None:
            if filled is None:
                filled = slots.new_ones(slots.shape[0], 1, slots.shape[1], dtype=torch.bool)
            hidden = self.hidden_norm(hidden.unflatten(1, filled.shape[1:]), filled).flatten(1, 2)
        return self.drop2(_affine(hidden, self.w2, self.b2))

    @classmethod
    def from_dense(
        cls,
        mlp: nn.Module,
        num_experts: int,
        *,
        expert_init: str = "shared",
        expert_mlp_ratio: float | None = None,
        expert_dropout: float | None = None,
    ) -> "Experts":
        """Experts in place of a block's own `mlp`, one of those that `read_mlp` reads.

        `shared` and `upcycle` start them all as that MLP (V-MoE; sparse upcycling, Komatsuzaki et al. 2023).
        `independent` draws the entries of each expert's tensors, with replacement, from those of the MLP's,
        which for a fresh MLP gives its own distribution, whatever that is. So does `shared`, once for all
        experts, for tensors of another shape: `expert_mlp_ratio` is the hidden width over the width.
        Raises ValueError for an MLP that experts cannot replace, or a setting that is out of range.
        """
        check_experts(expert_init, expert_mlp_ratio, expert_dropout)
        dense = read_mlp(mlp)
        hidden = _hidden(dense, expert_init, expert_mlp_ratio)
        experts = cls(
            num_experts,
            dense.width,
            hidden,
            act_layer=lambda: copy.deepcopy(dense.act),
            hidden_norm=None if dense.hidden_norm is None else dense.hidden_norm(num_experts, hidden),
            parameters=tuple(dense.weights),
        ).to(device=dense.weights["w1"].device, dtype=dense.weights["w1"].dtype)
        for drop, rate in zip((experts.drop1, experts.drop2), dense.dropout, strict=True):
            drop.p = 0.0 if rate is None else rate if expert_dropout is None else expert_dropout
        with torch.no_grad():
            for name, values in dense.weights.items():
                parameter = experts.get_parameter(name)
                parameter.copy_(_start(values, parameter.shape, expert_init))
        return experts


def _affine(
    x: Float[Tensor, "E N I"], weight: Float[Tensor, "E I O"], bias: Float[Tensor, "E O"] | None
) -> Float[Tensor, "E N O"]:
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias[:, None], x, weight)


def _hidden(dense: DenseMlp, init: str, mlp_ratio: float | None) -> int:
    hidden = dense.hidden if mlp_ratio is None else round(mlp_ratio * dense.width)
    if hidden < 1:
        raise ValueError(
            f"expert_mlp_ratio={mlp_ratio} leaves no hidden feature at a width of {dense.width}: give more"
        )
    if init == "upcycle" and hidden != dense.hidden:
        raise ValueError(
            f"expert_mlp_ratio={mlp_ratio} gives {hidden} hidden features, and expert_init=upcycle needs the "
            f"{dense.hidden} of the dense MLP: leave it out"
        )
    return hidden


def _start(values: Tensor, shape: torch.Size, init: str) -> Tensor:
    """What broadcasts to a parameter of this shape, with the experts as first axis."""
    if init == "independent":
        return _drawn(values, shape)
    return values if values.numel() == shape[1:].numel() else _drawn(values, shape[1:])


def _drawn(values: Tensor, shape: torch.Size) -> Tensor:
    return values.flatten()[torch.randint(values.numel(), shape, device=values.device)]
