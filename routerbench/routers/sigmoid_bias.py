"""Sigmoid gates balanced by a bias, without an auxiliary loss (Wang et al. 2024; DeepSeek-V3)."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_positive
from routerbench.moe.plan import SparsePlan, away_from_zero
from routerbench.moe.sparse import TokenChoiceRouter


class SigmoidBias(TokenChoiceRouter):
    """Each token takes the `top_k` experts with its largest sigmoid gates plus a bias of the expert.

    After every step of the optimizer the bias moves by `bias_update_rate`, up where an expert was asked for
    by fewer tokens than the mean, down where by more. The gates alone weigh the outputs.
    """

    counts: ClassVar[tuple[str, ...]] = ("asked",)

    bias: Tensor
    asked: Tensor

    def __init__(self, width: int, num_experts: int, *, bias_update_rate: float, **settings: Any) -> None:
        super().__init__(width, num_experts, **settings)
        check_positive("bias_update_rate", bias_update_rate)
        self.bias_update_rate = bias_update_rate
        self.register_buffer("bias", torch.zeros(num_experts))
        self.register_buffer("asked", torch.zeros(num_experts))

    def gates(self, logits: Float[Tensor, "G S E"]) -> Float[Tensor, "G S E"]:
        """A sigmoid for each expert alone."""
        return logits.sigmoid()

    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """The gates and the experts' bias."""
        return gates + self.bias

    def seat(self, affinity: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]) -> SparsePlan:
        """Seat the tokens and, in training, count what they ask for until the step."""
        plan = super().seat(affinity, gates)
        if self.training:
            # A forward pass that is done again for its gradient counts twice, which changes no sign.
            self.asked += plan.demand.sum(0)
        gates = away_from_zero(gates)
        return replace(plan, gates=gates / gates.sum(-1, keepdim=True))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the bias by what was asked for since the last step."""
        self.bias += self.bias_update_rate * (self.asked.mean() - self.asked).sign()
        self.asked.zero_()
