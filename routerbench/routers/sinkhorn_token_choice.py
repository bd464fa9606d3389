"""Sinkhorn Token Choice (S-BASE, Clark et al. 2022; Liu et al. 2024)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import TokenChoiceRouter
from routerbench.moe.transport import Sinkhorn, marginal_residuals


class SinkhornTokenChoice(TokenChoiceRouter):
    """Each token takes its `top_k` experts by a balanced transport plan; the gates weigh the outputs.

    The plan is that of `moe.transport.Sinkhorn`, whose settings are this router's too.
    """

    def __init__(
        self, width: int, num_experts: int, *, num_iterations: int, regularisation: float, **settings: Any
    ) -> None:
        super().__init__(width, num_experts, **settings)
        self.transport = Sinkhorn(num_iterations, regularisation)

    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """The plan with cost `-logits`."""
        return self.transport.plan(logits)

    def measures(self, affinity: Float[Tensor, "G S E"]) -> dict[str, Tensor]:
        """How far the plan is from its marginals."""
        return marginal_residuals(affinity)
