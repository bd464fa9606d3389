"""Soft controls, which learn nothing: fixed mixtures (ablations of Puigcerver et al. 2024)."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count
from routerbench.moe.plan import SoftPlan
from routerbench.moe.router import Router, Routing
from routerbench.moe.slots import Capacity


class FixedMixture(Router, ABC):
    """Mixes the tokens of an image by their positions alone.

    Each expert has `slots_per_expert` slots or, when that is None, as many as the capacity settings say.
    """

    spans_images: ClassVar[bool] = False

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        slots_per_expert: int | None,
        capacity_factor: float,
        capacity_rounding: str,
        capacity_multiple_of: int,
    ) -> None:
        super().__init__()
        check_count("width", width)
        check_count("num_experts", num_experts)
        if slots_per_expert is not None:
            check_count("slots_per_expert", slots_per_expert)
        self.num_experts = num_experts
        self.slots_per_expert = slots_per_expert
        self.capacity = Capacity(capacity_factor, None, capacity_rounding, capacity_multiple_of)

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """The same plan for every image."""
        num_groups, num_tokens, _ = tokens.shape
        num_slots = self.slots_per_expert or self.capacity.slots(num_tokens, self.num_experts, num_tokens)
        overlap = self.overlap(num_tokens, self.num_experts * num_slots).to(tokens)
        overlap = overlap.unflatten(1, (self.num_experts, num_slots))
        combine = overlap / overlap.sum((1, 2), keepdim=True)
        dispatch = overlap / overlap.sum(0)
        return Routing(
            SoftPlan(*(weight.expand(num_groups, -1, -1, -1) for weight in (dispatch, combine))), {}
        )

    @abstractmethod
    def overlap(self, num_tokens: int, num_slots: int) -> Float[Tensor, "S N"]:
        """How much each token, by its position, has to do with each slot."""


class Uniform(FixedMixture):
    """Every slot is the mean of all tokens, and every output the mean of all slots."""

    def overlap(self, num_tokens: int, num_slots: int) -> Float[Tensor, "S N"]:
        """The same for all."""
        return torch.ones(num_tokens, num_slots)


class Identity(FixedMixture):
    """Slots and tokens lie along each other in their orders; as many slots as tokens make the identity.

    A slot is the mean of the tokens along it, in parts where they lie along two, and gives its output back to
    them.
    """

    def overlap(self, num_tokens: int, num_slots: int) -> Float[Tensor, "S N"]:
        """Length that token [s, s + 1) and slot [n, n + 1) * S/N have in common."""
        token = torch.arange(num_tokens, dtype=torch.float64)[:, None]
        slot = torch.arange(num_slots, dtype=torch.float64) * num_tokens / num_slots
        length = num_tokens / num_slots
        return (torch.minimum(token + 1, slot + length) - torch.maximum(token, slot)).clamp(min=0)
