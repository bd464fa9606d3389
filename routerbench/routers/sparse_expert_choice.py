"""Sparsity-constrained Expert Choice (Liu, Puigcerver and Blondel 2023)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import ExpertChoiceRouter
from routerbench.moe.transport import SparseTransport, marginal_residuals


class SparseExpertChoice(ExpertChoiceRouter):
    """Each expert takes its tokens by a transport plan that allows it no more tokens than slots.

    The plan is that of `moe.transport.SparseTransport`, whose settings are this router's too.
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        solver: str,
        num_iterations: int | None,
        learning_rate: float | None,
        tolerance: float | None,
        **settings: Any,
    ) -> None:
        super().__init__(width, num_experts, **settings)
        self.transport = SparseTransport(solver, num_iterations, learning_rate, tolerance)

    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """The plan of the gates; its zeros fill what slots are left."""
        return self.transport.by_expert(gates, self.num_slots(gates.shape[1]))

    def measures(self, affinity: Float[Tensor, "G S E"]) -> dict[str, Tensor]:
        """How far the plan is from its marginals."""
        return marginal_residuals(affinity)
