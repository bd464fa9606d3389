"""Sinkhorn Token Choice (S-BASE, Clark et al. 2022; Liu et al. 2024)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count, check_flag, check_positive
from routerbench.moe.plan import SparsePlan
from routerbench.moe.router import SparseRouter
from routerbench.moe.slots import seat_by_token
from routerbench.moe.transport import sinkhorn_plan


class SinkhornTokenChoice(SparseRouter):
    """Each token takes its `top_k` experts by a balanced transport plan; the gates weigh the outputs.

    The plan takes `num_iterations` Sinkhorn iterations with the entropic `regularisation`. With
    `batch_priority` tokens queue by the largest entry of the plan, otherwise in their order in the group.
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        top_k: int,
        batch_priority: bool,
        num_iterations: int,
        regularisation: float,
        **settings: Any,
    ) -> None:
        super().__init__(width, num_experts, **settings)
        check_count("top_k", top_k, num_experts, "num_experts")
        check_flag("batch_priority", batch_priority)
        check_count("num_iterations", num_iterations)
        check_positive("regularisation", regularisation)
        self.top_k = self.experts_per_token = top_k
        self.batch_priority = batch_priority
        self.num_iterations = num_iterations
        self.regularisation = regularisation

    def seat(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"], capacity: int
    ) -> SparsePlan:
        """Seat tokens by the plan."""
        plan = sinkhorn_plan(logits, self.num_iterations, self.regularisation)
        return seat_by_token(
            plan,
            gates,
            top_k=self.top_k,
            capacity=capacity,
            batch_priority=self.batch_priority,
            normalize_combine=self.normalize_combine,
        )
