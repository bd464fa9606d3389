"""The contract of a router: tokens in, a routing out."""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from routerbench.checks import check_count, check_flag
from routerbench.moe.losses import LossWeights
from routerbench.moe.plan import Plan, SparsePlan
from routerbench.moe.scorer import make_scorer
from routerbench.moe.slots import Capacity


@dataclass(frozen=True)
class Routing:
    """What a router decided."""

    plan: Plan
    """Who sits where, with what weight."""
    losses: dict[str, Tensor]
    """Weighted scalars by name, already averaged over groups."""


class Router(nn.Module, ABC):
    """Decides which experts see which tokens; every group of tokens is routed alone."""

    spans_images: ClassVar[bool] = True
    """Whether a group may hold the tokens of several images."""
    experts_per_token: int | None = None
    """How many experts a token can have at most; None where nothing but their number limits it."""

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Route the tokens of each group; a call of the router gives them in at least float32."""

    def __call__(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Route in at least float32 with autocast off: low precision changes who is chosen."""
        device = tokens.device.type
        # The meta device, on which costs are counted, knows no autocast.
        known = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if known else nullcontext():
            return super().__call__(tokens.to(torch.promote_types(tokens.dtype, torch.float32)))


class SparseRouter(Router, ABC):
    """A router with a gate, whose slots hold one token each: a method is how it seats tokens.

    Settings, equal for all: the gate, which is a `scorer` of kind `linear`, `cosine` or `l2`, the latter two
    with a `projection_width` and a `temperature`, and its `noise_std`;
    `normalize_combine`, by which the weights of a token sum to 1;
    `capacity_factor`, or a number of slots as `capacity`,
    with `capacity_rounding` (`ceil` or `round`) and `capacity_multiple_of`; and the weights of the auxiliary
    losses. Raises ValueError for a setting out of its range.
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        scorer: str,
        projection_width: int | None,
        temperature: float | None,
        noise_std: float,
        normalize_combine: bool,
        capacity_factor: float,
        capacity: int | None,
        capacity_rounding: str,
        capacity_multiple_of: int,
        importance_weight: float,
        load_weight: float,
        gshard_weight: float,
        z_weight: float,
    ) -> None:
        super().__init__()
        check_count("num_experts", num_experts)
        check_flag("normalize_combine", normalize_combine)
        self.num_experts = num_experts
        self.top_k = 1
        self.normalize_combine = normalize_combine
        self.capacity = Capacity(capacity_factor, capacity, capacity_rounding, capacity_multiple_of)
        self.loss_weights = LossWeights(importance_weight, load_weight, gshard_weight, z_weight)
        self.scorer = make_scorer(
            scorer,
            width,
            num_experts,
            noise_std=noise_std,
            projection_width=projection_width,
            temperature=temperature,
        )

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Score, seat, and weigh the losses."""
        logits = self.scorer(tokens)
        num_tokens = tokens.shape[1]
        capacity = self.capacity.slots(num_tokens * self.top_k, self.num_experts, num_tokens)
        plan = self.seat(logits.noisy, logits.noisy.softmax(-1), capacity)
        return Routing(plan, self.loss_weights.losses(logits, self.top_k))

    @abstractmethod
    def seat(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"], capacity: int
    ) -> SparsePlan:
        """Give each expert's `capacity` slots to tokens; `gates` is the softmax of `logits` over experts."""
