"""Scorers: from tokens to the logits of the gate."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.weight_init import lecun_normal_
from torch import Tensor, nn

from routerbench.checks import check_not_negative


@dataclass(frozen=True)
class Logits:
    """Raw scores of every token for every expert, without and with the noise of training."""

    clean: Float[Tensor, "G S E"]
    noisy: Float[Tensor, "G S E"]
    noise_std: float
    """Standard deviation of the noise as it was added; 0 when there is none."""


class LinearScorer(nn.Module):
    """The linear gate `x W`, without bias; in a ConvNeXt it is the 1 x 1 convolution.

    In training it adds `noise_std / num_experts` times standard normal noise (V-MoE).
    """

    def __init__(self, width: int, num_experts: int, noise_std: float) -> None:
        super().__init__()
        check_not_negative("noise_std", noise_std)
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        lecun_normal_(self.weight)
        self.noise_std = noise_std / num_experts

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Logits:
        """Logits in the precision of the tokens, which a Router makes at least float32."""
        clean = F.linear(tokens, self.weight.to(tokens.dtype))
        if not self.training or self.noise_std == 0:
            return Logits(clean, clean, 0.0)
        return Logits(clean, clean + self.noise_std * torch.randn_like(clean), self.noise_std)
