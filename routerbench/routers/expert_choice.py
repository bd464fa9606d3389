"""Softmax Expert Choice (Zhou et al. 2022)."""

from jaxtyping import Float
from torch import Tensor

from routerbench.moe.sparse import ExpertChoiceRouter


class ExpertChoice(ExpertChoiceRouter):
    """Each expert takes the tokens with the largest gates for it."""

    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """The gates themselves."""
        return gates
