"""Sinkhorn Expert Choice (Liu et al. 2024)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count, check_positive
from routerbench.moe.plan import SparsePlan
from routerbench.moe.router import SparseRouter
from routerbench.moe.slots import seat_by_expert
from routerbench.moe.transport import sinkhorn_plan


class SinkhornExpertChoice(SparseRouter):
    """Each expert takes its tokens by a balanced transport plan; the gates weigh the outputs.

    The plan takes `num_iterations` Sinkhorn iterations with the entropic `regularisation`.
    """

    def __init__(
        self, width: int, num_experts: int, *, num_iterations: int, regularisation: float, **settings: Any
    ) -> None:
        super().__init__(width, num_experts, **settings)
        check_count("num_iterations", num_iterations)
        check_positive("regularisation", regularisation)
        self.num_iterations = num_iterations
        self.regularisation = regularisation

    def seat(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"], capacity: int
    ) -> SparsePlan:
        """Seat tokens by the experts' columns of the plan."""
        plan = sinkhorn_plan(logits, self.num_iterations, self.regularisation)
        return seat_by_expert(plan, gates, capacity=capacity, normalize_combine=self.normalize_combine)
