"""Norms over the hidden features of experts, each expert with its own weights."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class ResponseNorm(nn.Module):
    """Global response normalisation of each expert over its slots of a group (ConvNeXt V2, Woo et al. 2023).

    The dense layer normalises over the positions of an image; an expert over those that its slots hold.
    """

    def __init__(self, num_experts: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(num_experts, 1, 1, hidden))
        self.bias = nn.Parameter(torch.zeros(num_experts, 1, 1, hidden))

    def forward(
        self, hidden: Float[Tensor, "E G C H"], filled: Bool[Tensor, "E G C"]
    ) -> Float[Tensor, "E G C H"]:
        """Scale every channel by its norm over the filled slots, relative to the mean over channels."""
        response = hidden.masked_fill(~filled[..., None], 0).norm(dim=2, keepdim=True)
        relative = response / (response.mean(-1, keepdim=True) + self.eps)
        return hidden + torch.addcmul(self.bias, self.weight, hidden * relative)


class SlotNorm(nn.Module):
    """Layer normalisation of each slot, as EVA-02 has it inside its MLPs (Fang et al. 2023)."""

    def __init__(self, num_experts: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_experts, 1, 1, hidden))
        self.bias = nn.Parameter(torch.zeros(num_experts, 1, 1, hidden))

    def forward(
        self, hidden: Float[Tensor, "E G C H"], filled: Bool[Tensor, "E G C"]
    ) -> Float[Tensor, "E G C H"]:
        """Normalise over the features; a slot does not see the others, so that `filled` says nothing here."""
        normal = F.layer_norm(hidden, hidden.shape[-1:], eps=self.eps)
        return torch.addcmul(self.bias, self.weight, normal)
