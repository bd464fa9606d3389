"""Sparsity-constrained Expert Choice (Liu, Puigcerver and Blondel 2023)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count, check_positive
from routerbench.moe.plan import SparsePlan
from routerbench.moe.router import SparseRouter
from routerbench.moe.slots import seat_by_expert
from routerbench.moe.transport import sparse_plan


class SparseExpertChoice(SparseRouter):
    """Each expert takes its tokens by a transport plan that allows it no more tokens than slots.

    The plan takes `num_iterations` steps of Adam with `learning_rate`; the gates weigh the outputs.
    """

    def __init__(
        self, width: int, num_experts: int, *, num_iterations: int, learning_rate: float, **settings: Any
    ) -> None:
        super().__init__(width, num_experts, **settings)
        check_count("num_iterations", num_iterations)
        check_positive("learning_rate", learning_rate)
        self.num_iterations = num_iterations
        self.learning_rate = learning_rate

    def seat(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"], capacity: int
    ) -> SparsePlan:
        """Seat tokens by the experts' columns of the plan; its zeros fill what slots are left."""
        plan = sparse_plan(gates, capacity, self.num_iterations, self.learning_rate)
        return seat_by_expert(plan, gates, capacity=capacity, normalize_combine=self.normalize_combine)
