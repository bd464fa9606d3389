"""What routers that seat by a transport plan share, whoever chooses."""

from abc import ABC
from typing import Any

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import SparseRouter
from routerbench.moe.transport import Sinkhorn, SparseTransport, marginal_residuals


class TransportRouter(SparseRouter, ABC):
    """A router whose affinities are a transport plan; the gates weigh the outputs."""

    def measures(self, affinity: Float[Tensor, "G S E"]) -> dict[str, Tensor]:
        """How far the plan is from its marginals."""
        return marginal_residuals(affinity)


class SinkhornRouter(TransportRouter, ABC):
    """A router with the plan of `moe.transport.Sinkhorn`, whose settings are this router's too."""

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


class SparseTransportRouter(TransportRouter, ABC):
    """A router with a plan of `moe.transport.SparseTransport`, whose settings are this router's too."""

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
