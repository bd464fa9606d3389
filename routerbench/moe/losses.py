"""Auxiliary losses: each is computed in every group, then averaged over groups."""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_not_negative
from routerbench.moe.ranking import largest
from routerbench.moe.scorer import Logits, gates_of
from routerbench.moe.slots import count_asks


def importance_loss(gates: Float[Tensor, "G S E"]) -> Float[Tensor, ""]:
    """Squared coefficient of variation of the experts' summed gates (Shazeer et al. 2017, eq. 7)."""
    return _squared_variation(gates.sum(1)).mean()


def load_loss(
    logits: Float[Tensor, "G S E"],
    noisy_logits: Float[Tensor, "G S E"],
    noise_std: float,
    top_k: int,
) -> Float[Tensor, ""]:
    """Squared coefficient of variation of the experts' smooth load (V-MoE, appendix A).

    The load is the probability that an expert would be among the `top_k` if its noise were drawn again;
    `noise_std` is the deviation of the noise as it was added.
    """
    threshold = noisy_logits.gather(-1, largest(noisy_logits.detach(), top_k, dim=-1)[..., -1:])
    # Beyond six it is 0 or 1 to all digits, also of double precision; a CPU is slow with smaller numbers.
    deviations = F.hardtanh((threshold - logits) / (noise_std * math.sqrt(2)), -6, 6)
    # The probability is half of this, which the variation does not see.
    return _squared_variation(torch.erfc(deviations).mean(1)).mean()


def gshard_loss(gates: Float[Tensor, "G S E"]) -> Float[Tensor, ""]:
    """Share of first choices times mean gate of each expert, scaled to 1 at balance (GShard, algorithm 1)."""
    _, num_tokens, num_experts = gates.shape
    first = largest(gates.detach(), 1, dim=-1).flatten(1)
    share = count_asks(first, num_experts) / num_tokens
    return num_experts**2 * (share * gates.mean(1)).mean(-1).mean()


def z_loss(logits: Float[Tensor, "G S E"]) -> Float[Tensor, ""]:
    """Mean squared log-partition of the logits, which keeps them small (ST-MoE, eq. 5)."""
    return logits.logsumexp(-1).square().mean()


@dataclass(frozen=True)
class LossWeights:
    """What each auxiliary loss counts in the total loss."""

    importance: float
    load: float
    gshard: float
    z: float

    def __post_init__(self) -> None:
        """Raise ValueError for a weight that is negative or no number."""
        for field in fields(self):
            check_not_negative(f"{field.name}_weight", getattr(self, field.name))

    def losses(self, logits: Logits, top_k: int) -> dict[str, Float[Tensor, ""]]:
        """The weighted losses by name; those of weight 0 are left out, and load needs noise."""
        losses = {}
        if self.importance:
            losses["importance"] = self.importance * importance_loss(gates_of(logits.clean))
        if self.load and logits.noise_std:
            losses["load"] = self.load * load_loss(logits.clean, logits.noisy, logits.noise_std, top_k)
        if self.gshard:
            losses["gshard"] = self.gshard * gshard_loss(gates_of(logits.noisy))
        if self.z:
            losses["z"] = self.z * z_loss(logits.clean)
        return losses


def _squared_variation(values: Float[Tensor, "G E"]) -> Float[Tensor, "G"]:
    return values.var(-1, correction=0) / values.mean(-1).square()
