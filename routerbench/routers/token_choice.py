"""Softmax Token Choice (V-MoE, Riquelme et al. 2021)."""

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import TokenChoiceRouter


class TokenChoice(TokenChoiceRouter):
    """Each token takes the `top_k` experts with its largest gates."""

    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """The gates themselves."""
        return gates
