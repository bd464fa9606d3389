"""Sparsity-constrained Token Choice, the twin of Expert Choice (Liu, Puigcerver and Blondel 2023)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import TokenChoiceRouter
from routerbench.moe.transport import SparseTransport, marginal_residuals


class SparseTokenChoice(TokenChoiceRouter):
    """Each token takes its experts by a transport plan that allows it no more than `top_k` of them.

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
        """The plan of the gates; where it gives a token fewer experts, the first others fill up."""
        return self.transport.by_token(gates, self.num_choices)

    def measures(self, affinity: Float[Tensor, "G S E"]) -> dict[str, Tensor]:
        """How far the plan is from its marginals."""
        return marginal_residuals(affinity)
