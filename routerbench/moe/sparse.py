"""Sparse routers: a gate, and whether tokens choose their experts or experts their tokens."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count, check_flag
from routerbench.moe.losses import LossWeights
from routerbench.moe.plan import SparsePlan
from routerbench.moe.router import Router, Routing
from routerbench.moe.scorer import gates_of, make_scorer
from routerbench.moe.slots import Capacity, seat_by_expert, seat_by_token


class SparseRouter(Router, ABC):
    """A router with a gate, whose slots hold one token each.

    Settings, equal for all: the gate, which is a `scorer` of kind `linear`, `cosine` or `l2`, the latter two
    with a `projection_width` and a `temperature`, and its `noise_std`; `normalize_combine`, by which the
    weights of a token sum to 1; `capacity_factor`, or a number of slots as `capacity`, with
    `capacity_rounding` (`ceil` or `round`) and `capacity_multiple_of`, and `capacity_factor_eval`; and the
    weights of the auxiliary losses. Raises ValueError for a setting out of its range.
    """

    changeable: ClassVar[frozenset[str]] = frozenset({"capacity_factor", "dropless"})

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
        capacity_factor_eval: float | None,
        importance_weight: float,
        load_weight: float,
        gshard_weight: float,
        z_weight: float,
        dropless: bool = False,
    ) -> None:
        super().__init__()
        check_count("width", width)
        check_count("num_experts", num_experts)
        check_flag("normalize_combine", normalize_combine)
        self.num_experts = num_experts
        self.normalize_combine = normalize_combine
        self.capacity = Capacity(
            capacity_factor, capacity, capacity_rounding, capacity_multiple_of, capacity_factor_eval, dropless
        )
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
        gates = self.gates(logits.noisy)
        affinity = self.affinity(logits.noisy, gates).detach()
        plan = self.seat(affinity, gates)
        losses = self.loss_weights.losses(logits, self.num_choices)
        return Routing(plan, losses, self.measures(affinity))

    @property
    def num_choices(self) -> int:
        """How many experts a token asks for, in training or in evaluation, whichever it is."""
        return 1

    def num_slots(self, num_tokens: int) -> int:
        """Slots per expert for a group of so many tokens, in training or in evaluation, whichever it is."""
        return self.capacity.slots(
            num_tokens * self.num_choices, self.num_experts, num_tokens, training=self.training
        )

    def gates(self, logits: Float[Tensor, "G S E"]) -> Float[Tensor, "G S E"]:
        """What weighs the experts' outputs: the softmax over experts."""
        return gates_of(logits)

    @abstractmethod
    def affinity(
        self, logits: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]
    ) -> Float[Tensor, "G S E"]:
        """What decides who is seated: the method. No gradient passes through it."""

    @abstractmethod
    def seat(self, affinity: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]) -> SparsePlan:
        """Give slots to tokens by their affinities."""

    def measures(self, affinity: Float[Tensor, "G S E"]) -> dict[str, Tensor]:
        """What the method tells of the affinities; see `Routing`."""
        return {}


class TokenChoiceRouter(SparseRouter, ABC):
    """Each token takes the `top_k` experts to which it has the largest affinity; their gates weigh them.

    With `batch_priority` tokens queue by their largest affinity, otherwise in their order in the group.
    Evaluation may take another `top_k_eval`, and with `dropless` has slots for every token.
    """

    changeable: ClassVar[frozenset[str]] = SparseRouter.changeable | {"top_k", "batch_priority"}

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        top_k: int,
        top_k_eval: int | None,
        batch_priority: bool,
        dropless: bool,
        **settings: Any,
    ) -> None:
        super().__init__(width, num_experts, dropless=dropless, **settings)
        check_count("top_k", top_k, num_experts, "num_experts")
        if top_k_eval is not None:
            check_count("top_k_eval", top_k_eval, num_experts, "num_experts")
        check_flag("batch_priority", batch_priority)
        self.experts_per_token = top_k
        self.top_k = top_k
        self.top_k_eval = top_k if top_k_eval is None else top_k_eval
        self.batch_priority = batch_priority

    @property
    def num_choices(self) -> int:
        """`top_k` or, in evaluation, `top_k_eval`."""
        return self.top_k if self.training else self.top_k_eval

    def seat(self, affinity: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]) -> SparsePlan:
        """Seat the tokens choice by choice."""
        return seat_by_token(
            affinity,
            gates,
            top_k=self.num_choices,
            capacity=self.num_slots(gates.shape[1]),
            batch_priority=self.batch_priority,
            normalize_combine=self.normalize_combine,
        )


class ExpertChoiceRouter(SparseRouter, ABC):
    """Each expert takes the tokens with the largest affinity to it, as many as it has slots."""

    def seat(self, affinity: Float[Tensor, "G S E"], gates: Float[Tensor, "G S E"]) -> SparsePlan:
        """Seat the tokens expert by expert."""
        return seat_by_expert(
            affinity,
            gates,
            capacity=self.num_slots(gates.shape[1]),
            normalize_combine=self.normalize_combine,
        )
