"""Slots: how many an expert has, and who gets them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from routerbench.checks import check_count, check_flag, check_one_of, check_positive
from routerbench.moe.plan import SparsePlan, away_from_zero
from routerbench.moe.ranking import largest


@dataclass(frozen=True)
class Capacity:
    """Slots per expert and group: `factor` times the even share, or the number `fixed`.

    Evaluation may take another factor, `eval_factor`, or be `dropless`: slots for every token.
    """

    factor: float
    fixed: int | None
    rounding: str
    multiple_of: int
    eval_factor: float | None = None
    dropless: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a setting that gives no capacity."""
        check_positive("capacity_factor", self.factor)
        if self.fixed is not None:
            check_count("capacity", self.fixed)
        check_one_of("capacity_rounding", self.rounding, ("ceil", "round"))
        check_count("capacity_multiple_of", self.multiple_of)
        check_flag("dropless", self.dropless)
        if self.eval_factor is not None:
            check_positive("capacity_factor_eval", self.eval_factor)
            if self.dropless:
                raise ValueError(
                    f"capacity_factor_eval={self.eval_factor} means nothing to dropless=true: leave one out"
                )

    def slots(self, num_asks: int, num_experts: int, num_tokens: int, training: bool = True) -> int:
        """C for `num_asks` requests (tokens times choices) of a group of `num_tokens`; 1 <= C <= num_tokens.

        `ceil` with a multiple of 4 is V-MoE's published rule, `round` (half to even) Soft MoE's.
        """
        factor, fixed = self.factor, self.fixed
        if not training and self.dropless:
            fixed = num_tokens
        elif not training and self.eval_factor is not None:
            factor, fixed = self.eval_factor, None
        if fixed is not None:
            return min(fixed, num_tokens)
        wanted = num_asks * factor / num_experts
        rounded = max(1, math.ceil(wanted) if self.rounding == "ceil" else round(wanted))
        return min(-(-rounded // self.multiple_of) * self.multiple_of, num_tokens)


def seat_by_token(
    scores: Float[Tensor, "G S E"],
    gates: Float[Tensor, "G S E"],
    *,
    top_k: int,
    capacity: int,
    batch_priority: bool,
    normalize_combine: bool,
) -> SparsePlan:
    """Token Choice: each token asks for its `top_k` experts by `scores`, and weighs them by `gates` (V-MoE).

    Tokens queue in their order in the group, or with `batch_priority` by their largest score, descending.
    With `normalize_combine` a token's weights are over the sum of its `top_k` gates.
    """
    scores = scores.detach()
    choice = largest(scores, top_k, dim=-1)
    num_groups, num_tokens, _ = scores.shape
    if batch_priority:
        order = largest(scores.amax(-1), num_tokens, dim=-1)
    else:
        order = torch.arange(num_tokens, device=scores.device).expand(num_groups, -1)
    plan = fill_slots(choice, order, gates, capacity)
    if not normalize_combine:
        return plan
    return plan.over(away_from_zero(gates).gather(-1, choice).sum(-1))


def fill_slots(
    choice: Int[Tensor, "G S K"],
    order: Int[Tensor, "G S"],
    gates: Float[Tensor, "G S E"],
    capacity: int,
) -> SparsePlan:
    """Seat the tokens' choices: every first choice before any second, and within a choice in `order`.

    Who finds the expert's `capacity` slots taken is dropped. `gates` are the weights.
    """
    num_experts, num_choices = gates.shape[-1], choice.shape[-1]
    asks = choice.gather(1, order[..., None].expand_as(choice)).transpose(1, 2).flatten(1)
    # A stable sort by expert lays the queues of all experts end to end, each still in the order of asking.
    position = asks.sort(dim=1, stable=True).indices
    queue = order.repeat(1, num_choices).gather(1, position)
    asked = count_asks(asks, num_experts)
    seat = torch.arange(capacity, device=asks.device)
    filled = seat < asked[..., None]
    place = (asked.cumsum(1) - asked)[..., None] + seat
    token = queue.gather(1, place.clamp(max=queue.shape[1] - 1).flatten(1)).view_as(place)
    token = token.masked_fill(~filled, 0)
    weight = gates.transpose(1, 2).gather(2, token).masked_fill(~filled, 0)
    return SparsePlan(token, weight, filled, gates, asked, num_asks=asks.shape[1])


def count_asks(asks: Int[Tensor, "G N"], num_experts: int) -> Int[Tensor, "G E"]:
    """How often each expert is asked for."""
    return asks.new_zeros(len(asks), num_experts).scatter_add(1, asks, torch.ones_like(asks))


def seat_by_expert(
    scores: Float[Tensor, "G S E"],
    gates: Float[Tensor, "G S E"],
    *,
    capacity: int,
    normalize_combine: bool,
) -> SparsePlan:
    """Expert Choice: each expert takes the `capacity` tokens with its largest `scores` (Zhou et al. 2022).

    Tokens do not ask here; as demand counts the expert that each token's gate prefers. With
    `normalize_combine` the weights of a token that is taken sum to 1 (sparse upcycling).
    """
    token = largest(scores.detach(), capacity, dim=1).transpose(1, 2)
    weight = gates.transpose(1, 2).gather(2, token)
    asked = count_asks(largest(gates.detach(), 1, dim=-1).flatten(1), gates.shape[-1])
    plan = SparsePlan(token, weight, torch.ones_like(token, dtype=torch.bool), gates, asked)
    if not normalize_combine:
        return plan
    taken = weight.new_zeros(gates.shape[:2])
    return plan.over(taken.scatter_add(1, token.flatten(1), away_from_zero(weight).flatten(1)))
