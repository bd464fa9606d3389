"""Sparsity-constrained Token Choice, the twin of Expert Choice (Liu, Puigcerver and Blondel 2023)."""

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import TokenChoiceRouter
from routerbench.moe.transport_routers import SparseTransportRouter


class SparseTokenChoice(SparseTransportRouter, TokenChoiceRouter):
    """Each token takes its experts by a transport plan that allows it no more than `top_k` of them."""

    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """The plan of the gates; where it gives a token fewer experts, the first others fill up."""
        return self.transport.by_token(gates, self.num_choices)
