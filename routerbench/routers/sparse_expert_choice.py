"""Sparsity-constrained Expert Choice (Liu, Puigcerver and Blondel 2023)."""

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import ExpertChoiceRouter
from routerbench.moe.transport_routers import SparseTransportRouter


class SparseExpertChoice(SparseTransportRouter, ExpertChoiceRouter):
    """Each expert takes its tokens by a transport plan that allows it no more tokens than slots."""

    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """The plan of the gates; its zeros fill what slots are left."""
        return self.transport.by_expert(gates, self.num_slots(gates.shape[1]))
