"""Soft MoE (Puigcerver et al. 2024)."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from routerbench.checks import check_count, check_not_negative
from routerbench.moe.plan import SoftPlan
from routerbench.moe.router import Routing, SoftRouter
from routerbench.moe.slots import Capacity


class Soft(SoftRouter):
    """Every slot is a learned mixture of an image's tokens, every output a mixture of all slots.

    Each expert has `slots_per_expert` slots. When that is None, the capacity settings and the number of
    tokens of the first group decide, and `phi` takes its shape there. In training the logits have normal
    noise of deviation `noise_std`, as published without regard to the number of experts.
    """

    spans_images: ClassVar[bool] = False

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        slots_per_expert: int | None,
        noise_std: float,
        capacity_factor: float,
        capacity_rounding: str,
        capacity_multiple_of: int,
    ) -> None:
        super().__init__()
        check_count("width", width)
        check_count("num_experts", num_experts)
        check_not_negative("noise_std", noise_std)
        self.noise_std = noise_std
        self.num_experts = num_experts
        self.capacity = Capacity(capacity_factor, None, capacity_rounding, capacity_multiple_of)
        self.width = width
        self.phi = nn.UninitializedParameter()
        self.scale = nn.Parameter(torch.ones(()))
        if slots_per_expert is not None:
            check_count("slots_per_expert", slots_per_expert)
            self._shape_phi(slots_per_expert)

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Softmax of the cosine logits over tokens to dispatch, and over slots to combine."""
        if isinstance(self.phi, nn.UninitializedParameter):
            num_tokens = tokens.shape[1]
            self._shape_phi(self.capacity.slots(num_tokens, self.num_experts, num_tokens))
        logits = self.logits(tokens)
        if self.training and self.noise_std:
            logits = logits + self.noise_std * torch.randn_like(logits)
        combine = logits.flatten(2).softmax(-1).view_as(logits)
        return Routing(SoftPlan(logits.softmax(1), combine), {})

    def logits(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S E P"]:
        """The scaled cosine of every token and slot, without noise; `phi` has its shape."""
        phi = self.scale.to(tokens.dtype) * _unit(self.phi.to(tokens.dtype), dim=0)
        return (_unit(tokens, dim=-1) @ phi.flatten(1)).unflatten(-1, phi.shape[1:])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Give a `phi` without shape that of the checkpoint."""
        phi = state_dict.get(f"{prefix}phi")
        if isinstance(self.phi, nn.UninitializedParameter) and phi is not None:
            self._shape_phi(phi.shape[-1])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _shape_phi(self, num_slots: int) -> None:
        assert isinstance(self.phi, nn.UninitializedParameter)
        self.phi.materialize((self.width, self.num_experts, num_slots))
        nn.init.normal_(self.phi, std=self.width**-0.5)


def _unit(vector: Tensor, dim: int) -> Tensor:
    """The vector over its length, with the published small constant inside the root."""
    return vector * (vector.square().sum(dim, keepdim=True) + 1e-6).rsqrt()
