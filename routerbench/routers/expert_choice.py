"""Softmax Expert Choice (Zhou et al. 2022)."""

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.plan import SparsePlan
from routerbench.moe.router import SparseRouter
from routerbench.moe.slots import seat_by_expert


class ExpertChoice(SparseRouter):
    """Each expert takes the tokens with the largest gates for it, as many as it has slots."""

    def seat(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"], capacity: int
    ) -> SparsePlan:
        """Seat tokens by the experts' columns of gates."""
        return seat_by_expert(gates, gates, capacity=capacity, normalize_combine=self.normalize_combine)
