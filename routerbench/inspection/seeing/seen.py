"""What one pass over the test images shows of every router."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int16, Int64


@dataclass(frozen=True)
class LayerSeen:
    """One MoE layer: N images of T tokens, E experts. Prefix tokens (class token, registers) come first."""

    name: str
    grid: tuple[int, int]
    """Rows and columns of the patches, one row where they lie in no grid; T is their product, and
    `num_prefix`."""
    num_prefix: int
    expert: Int16[np.ndarray, "N T"]
    """Of the experts that hold any of the token, the one with its largest gate; -1 where it is dropped."""
    first: Int16[np.ndarray, "N T"]
    """The expert with the largest gate, whether it serves the token or not."""
    gate: Float[np.ndarray, "N T"]
    """That gate, in half precision."""
    slots: Float[np.ndarray, "N T"]
    """Slots that the token fills, in parts where they are shared; in half precision. Of soft slots they are
    its summed dispatch weight."""
    share: Float32[np.ndarray, "N E"]
    """What the tokens of an image have of each expert's slots, summed: see `Plan.expert_share`."""
    together: Float32[np.ndarray, "E E"]
    """How many tokens both experts serve; on the diagonal, how many the expert serves."""
    influence: Float32[np.ndarray, "E"]
    """Weight with which the outputs of each expert's slots reach the tokens: the mean over all tokens."""
    weight_similarity: Float32[np.ndarray, "E E"]
    """Cosine similarity of the experts' weights, all tensors of an expert as one vector."""
    output_similarity: Float32[np.ndarray, "E E"]
    """Cosine similarity of the experts' outputs on the same tokens, the mean over a sample of them."""

    @property
    def num_experts(self) -> int:
        """E."""
        return self.share.shape[1]

    @property
    def dropped(self) -> Bool[np.ndarray, "N T"]:
        """Tokens that no slot holds."""
        return self.expert < 0


@dataclass(frozen=True)
class Seen:
    """All MoE layers, in the order of the forward pass, and what became of the images."""

    layers: tuple[LayerSeen, ...]
    labels: Int64[np.ndarray, "N"]
    predicted: Int64[np.ndarray, "N"]
    class_names: tuple[str, ...]
