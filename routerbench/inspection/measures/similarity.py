"""How alike the experts of a layer are: their weights, their outputs, the images that they serve."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Num
from torch import Tensor

from routerbench.moe.experts import Experts


@torch.no_grad()
def of_weights(experts: Experts) -> Float32[np.ndarray, "E E"]:
    """Cosine similarity of the experts' weights, all tensors of an expert as one vector."""
    vectors = torch.cat([weights.flatten(1).float() for weights in experts.parameters()], 1)
    return _cosines(vectors).cpu().numpy()


@torch.no_grad()
def of_outputs(experts: Experts, tokens: Float[Tensor, "n D"]) -> Float32[np.ndarray, "E E"]:
    """Cosine similarity of the experts' outputs on the same tokens, the mean over tokens.

    Where experts have a norm over the tokens of a group (ConvNeXt V2), these are one group.
    """
    device, dtype = experts.w1.device, experts.w1.dtype
    outputs = experts(tokens.to(device, dtype).expand(experts.num_experts, -1, -1))
    return _cosines(outputs.float().transpose(0, 1)).mean(0).cpu().numpy()


def of_images(share: Num[np.ndarray, "N E"]) -> Float[np.ndarray, "E E"]:
    """How alike two experts occur over images: the sums of what both have over what either has (Jaccard).

    For c_i and c_j, what two experts have of an image's tokens: the sum of c_i + c_j - |c_i - c_j| over
    images where both occur, over that of c_i + c_j where either does (Videau et al. 2025). nan for two that
    never occur.
    """
    share = share.astype(np.float64)
    either = share.sum(0)[:, None] + share.sum(0)
    # The numerator is twice the smaller of the two, which is 0 where either does not occur.
    both = np.stack([2 * np.minimum(share, of_expert[:, None]).sum(0) for of_expert in share.T])
    return np.divide(both, either, out=np.full(either.shape, np.nan), where=either > 0)


def between(similarity: Num[np.ndarray, "E E"]) -> float:
    """The mean over all pairs of two experts; nan without any pair."""
    pairs = similarity[~np.eye(len(similarity), dtype=bool)]
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if len(known) else float("nan")


def _cosines(vectors: Float[Tensor, "... E D"]) -> Float[Tensor, "... E E"]:
    unit = F.normalize(vectors, dim=-1)
    return unit @ unit.transpose(-1, -2)
