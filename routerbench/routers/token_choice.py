"""Softmax Token Choice (V-MoE, Riquelme et al. 2021)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count, check_flag
from routerbench.moe.plan import SparsePlan
from routerbench.moe.router import SparseRouter
from routerbench.moe.slots import seat_by_token


class TokenChoice(SparseRouter):
    """Each token takes the `top_k` experts with its largest gates, which also weigh their outputs.

    With `batch_priority` tokens queue by their largest gate, otherwise in their order in the group.
    """

    def __init__(
        self, width: int, num_experts: int, *, top_k: int, batch_priority: bool, **settings: Any
    ) -> None:
        super().__init__(width, num_experts, **settings)
        check_count("top_k", top_k, num_experts, "num_experts")
        check_flag("batch_priority", batch_priority)
        self.top_k = self.experts_per_token = top_k
        self.batch_priority = batch_priority

    def seat(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"], capacity: int
    ) -> SparsePlan:
        """Seat tokens by their gates."""
        return seat_by_token(
            gates,
            gates,
            top_k=self.top_k,
            capacity=capacity,
            batch_priority=self.batch_priority,
            normalize_combine=self.normalize_combine,
        )
