"""Plans: who sits in which slot, and with what weight.

Axes, here and everywhere: G groups, S tokens per group, D width, E experts, C slots per expert and group,
K choices of a token, H hidden width of an expert, P slots per expert of a soft plan, N slots of an expert in
all groups, G times C, M slots of all experts without most that are empty, R rows that sit in them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


class Plan(ABC):
    """A routing decision: it carries tokens to slots, and the experts' outputs home.

    What a plan says of itself is the same for every router, so that routers can stand in one column:

    * `gates (G, S, E)`: how much each token leans to each expert; sums to 1 over experts.
    * `filled (G, E, C)`: which slots hold something.
    * `demand (G, E)`: how many tokens asked for each expert, before any capacity.
    * `load (G, E)`: how many slots of each expert are filled.
    * `expert_share (G, S, E)`: what each token has of each expert's slots, over an even share of them where a
      slot is shared: 1 where a slot holds the token alone.
    * `serves (G, S, E)`, `served (G, S)`: which experts, and how many, give each token at least that.
    * `dropped (G, S)`: whether no slot holds any of the token.
    * `slots_taken (G, S)`: how many slots each token fills, in parts where slots are shared.
    """

    gates: Float[Tensor, "G S E"]
    filled: Bool[Tensor, "G E C"]

    @abstractmethod
    def dispatch(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "E N D"]:
        """Carry tokens to their slots; the slots of one group are contiguous, and empty slots are zero."""

    @abstractmethod
    def combine(self, slots: Float[Tensor, "E N D"]) -> Float[Tensor, "G S D"]:
        """Carry weighted slot outputs home; sparse plans add up in the precision of the weights."""

    @abstractmethod
    def seats(self, tokens: Float[Tensor, "G S D"]) -> "Seats":
        """The filled slots alone, expert by expert, and the rows that sit there."""

    @abstractmethod
    def home(self, rows: Float[Tensor, "R D"]) -> Float[Tensor, "G S D"]:
        """The outputs of the tokens, from the weighted sums for the rows of `seats`."""

    @abstractmethod
    def dense(self) -> tuple[Float[Tensor, "G S E C"], Float[Tensor, "G S E C"]]:
        """Dispatch and combine as in the definition (Liu et al. 2024): slow, for tests and pictures."""

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """Slots per expert and group."""

    @property
    @abstractmethod
    def demand(self) -> Float[Tensor, "G E"]:
        """Tokens that asked for each expert, before any capacity."""

    @property
    @abstractmethod
    def load(self) -> Float[Tensor, "G E"]:
        """Filled slots of each expert."""

    @property
    @abstractmethod
    def expert_share(self) -> Float[Tensor, "G S E"]:
        """What each token has of each expert's slots; 1 is a slot, or an even share of mixtures."""

    @abstractmethod
    def mixing(self) -> "Mixing":
        """How far slots are mixtures of tokens."""

    @property
    def serves(self) -> Bool[Tensor, "G S E"]:
        """Whether an expert gives a token a slot, or at least an even share of its slots."""
        return self.expert_share > 1 - 1e-4  # a sum of weights is not exact

    @property
    def served(self) -> Int[Tensor, "G S"]:
        """How many experts serve each token."""
        return self.serves.sum(-1)

    @property
    def dropped(self) -> Bool[Tensor, "G S"]:
        """Tokens that no slot holds."""
        return self.expert_share.sum(-1) == 0

    @property
    def slots_taken(self) -> Float[Tensor, "G S"]:
        """Slots that each token fills; of a mixture its share. Their sum is the number of filled slots."""
        share, filled = self.expert_share.sum(-1), self.load.sum(-1, keepdim=True)
        return share * filled / share.sum(-1, keepdim=True).clamp(min=1e-12)


@dataclass(frozen=True)
class Seats:
    """Filled slots, expert by expert, without most that are empty.

    Their number M is known without a look at the plan: the last of them, beyond the sum of `counts`, may be
    empty and weigh nothing.
    """

    rows: Float[Tensor, "R D"]
    """What can sit in a slot."""
    index: Int[Tensor, "M"]
    """The row in each slot."""
    weight: Float[Tensor, "M"]
    """What the slot's output counts for its row."""
    counts: Int[Tensor, "E"]
    """Filled slots of each expert."""


@dataclass(frozen=True)
class Mixing:
    """What the slots of a group are made of, on average; one token in a slot is entropy 0 and share 1."""

    slot_entropy: Float[Tensor, "G"]
    """Entropy of a slot's dispatch weights over that of an even mixture of all tokens, in [0, 1]."""
    token_share: Float[Tensor, "G"]
    """Largest dispatch weight of a slot."""
    slot_similarity: Float[Tensor, "G"]
    """Cosine similarity of the dispatch weights of two slots, over all pairs; 0 where there is one slot."""


@dataclass(frozen=True)
class SparsePlan(Plan):
    """At most one token in a slot: O(G*E*C) memory, never the (S, E, C) one-hot."""

    token: Int[Tensor, "G E C"]
    """Index of the token in each slot; 0 in an empty slot."""
    weight: Float[Tensor, "G E C"]
    """What the slot's output counts for its token; 0 in an empty slot."""
    filled: Bool[Tensor, "G E C"]
    """False for an empty slot."""
    gates: Float[Tensor, "G S E"]
    asked: Int[Tensor, "G E"]
    """How many tokens asked for each expert."""
    num_asks: int | None = None
    """Requests for slots in a group, which bound the filled ones; None where nothing but C does."""

    def dispatch(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "E N D"]:
        flat = tokens.flatten(0, 1)
        # Empty slots hold a row of zeros: cheaper than to blank them out, and their gradients after that.
        rows = self._rows().masked_fill(~_by_expert(self.filled).flatten(), len(flat))
        slots = torch.cat([flat, flat.new_zeros(1, flat.shape[1])]).index_select(0, rows)
        return slots.unflatten(0, (self.token.shape[1], -1))

    def combine(self, slots: Float[Tensor, "E N D"]) -> Float[Tensor, "G S D"]:
        weighted = (slots * _by_expert(self.weight)[..., None]).flatten(0, 1)
        home = weighted.new_zeros(self.gates.shape[:2].numel(), slots.shape[2])
        return self.home(home.index_add_(0, self._rows(), weighted))

    def seats(self, tokens: Float[Tensor, "G S D"]) -> "Seats":
        filled = _by_expert(self.filled)
        most = filled.numel() if self.num_asks is None else min(filled.numel(), len(tokens) * self.num_asks)
        # A sort finds them without the question how many there are, for which the host would have to wait.
        order = filled.flatten().sort(descending=True, stable=True).indices[:most]
        index = self._rows().index_select(0, order)
        weight = _by_expert(self.weight).flatten().index_select(0, order)
        return Seats(tokens.flatten(0, 1), index, weight, filled.sum(1))

    def home(self, rows: Float[Tensor, "R D"]) -> Float[Tensor, "G S D"]:
        return rows.unflatten(0, self.gates.shape[:2])

    def dense(self) -> tuple[Float[Tensor, "G S E C"], Float[Tensor, "G S E C"]]:
        seated = F.one_hot(self.token, self.gates.shape[1]) * self.filled[..., None]
        dispatch = seated.permute(0, 3, 1, 2).to(self.weight.dtype)
        return dispatch, dispatch * self.weight[:, None]

    def over(self, total: Float[Tensor, "G S"]) -> "SparsePlan":
        """The same seats, with every weight over the total of its token, both away from zero."""
        weight = away_from_zero(self.weight).masked_fill(~self.filled, 0)
        return replace(self, weight=weight / total.gather(1, self.token.flatten(1)).view_as(self.token))

    @property
    def num_slots(self) -> int:
        return self.token.shape[-1]

    @property
    def demand(self) -> Float[Tensor, "G E"]:
        return self.asked.to(self.weight.dtype)

    @property
    def load(self) -> Float[Tensor, "G E"]:
        return self.filled.sum(-1).to(self.weight.dtype)

    @property
    def expert_share(self) -> Float[Tensor, "G S E"]:
        by_expert = self.weight.new_zeros(self.gates.shape).transpose(1, 2)
        return by_expert.scatter_add(2, self.token, self.filled.to(self.weight.dtype)).transpose(1, 2)

    def mixing(self) -> Mixing:
        slots = self.expert_share.sum(2)  # of each token
        filled = slots.sum(1)
        pairs, alike = filled * (filled - 1), (slots * (slots - 1)).sum(1)
        return Mixing(torch.zeros_like(filled), torch.ones_like(filled), alike / pairs.clamp(min=1))

    def _rows(self) -> Int[Tensor, "N"]:
        """Row of each slot's token among all tokens (G*S, D), in the order of the slots (E, G, C)."""
        num_groups, num_tokens, _ = self.gates.shape
        first = torch.arange(num_groups, device=self.token.device) * num_tokens
        return _by_expert(self.token + first[:, None, None]).flatten()


@dataclass(frozen=True)
class SoftPlan(Plan):
    """Every slot is a mixture of the group's tokens (Puigcerver et al. 2024)."""

    dispatch_weight: Float[Tensor, "G S E P"]
    """Share of each token in each slot; sums to 1 over tokens."""
    combine_weight: Float[Tensor, "G S E P"]
    """Share of each slot in each token's output; sums to 1 over all slots."""

    def dispatch(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "E N D"]:
        slots = self._mixtures(tokens).unflatten(1, self.dispatch_weight.shape[2:])
        return slots.transpose(0, 1).flatten(1, 2)

    def combine(self, slots: Float[Tensor, "E N D"]) -> Float[Tensor, "G S D"]:
        by_group = slots.unflatten(1, (-1, self.num_slots)).transpose(0, 1).flatten(0, 2)
        return self.home(by_group)

    def seats(self, tokens: Float[Tensor, "G S D"]) -> "Seats":
        num_groups, _, num_experts, num_slots = self.dispatch_weight.shape
        rows = self._mixtures(tokens).flatten(0, 1)
        index = torch.arange(len(rows), device=rows.device).view(num_groups, num_experts, num_slots)
        counts = index.new_full((num_experts,), num_groups * num_slots)
        return Seats(rows, _by_expert(index).flatten(), tokens.new_ones(len(rows)), counts)

    def home(self, rows: Float[Tensor, "R D"]) -> Float[Tensor, "G S D"]:
        by_group = rows.unflatten(0, (len(self.combine_weight), -1))
        return self.combine_weight.flatten(2) @ by_group.to(self.combine_weight.dtype)

    def dense(self) -> tuple[Float[Tensor, "G S E C"], Float[Tensor, "G S E C"]]:
        return self.dispatch_weight, self.combine_weight

    @property
    def num_slots(self) -> int:
        return self.dispatch_weight.shape[-1]

    @property
    def filled(self) -> Bool[Tensor, "G E C"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        num_groups, _, num_experts, num_slots = self.dispatch_weight.shape
        return self.dispatch_weight.new_ones(num_groups, num_experts, num_slots, dtype=torch.bool)

    @property
    def gates(self) -> Float[Tensor, "G S E"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.combine_weight.sum(-1)

    @property
    def demand(self) -> Float[Tensor, "G E"]:
        return self.gates.sum(1)

    @property
    def load(self) -> Float[Tensor, "G E"]:
        num_groups, _, num_experts, num_slots = self.dispatch_weight.shape
        return self.dispatch_weight.new_full((num_groups, num_experts), num_slots)

    @property
    def expert_share(self) -> Float[Tensor, "G S E"]:
        num_tokens, num_slots = self.dispatch_weight.shape[1], self.num_slots
        return self.dispatch_weight.sum(-1) * (num_tokens / num_slots)

    def mixing(self) -> Mixing:
        slots = self.dispatch_weight.flatten(2)
        num_tokens, num_slots = slots.shape[1:]
        entropy = torch.special.entr(slots).sum(1) / math.log(max(num_tokens, 2))
        # The sum over all pairs is the squared length of the sum, less each slot with itself.
        together = F.normalize(slots, dim=1).sum(2).square().sum(1) - num_slots
        similarity = together / max(num_slots * (num_slots - 1), 1)
        return Mixing(entropy.mean(1), slots.amax(1).mean(1), similarity)

    def _mixtures(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G slots D"]:
        """The slots of each group, expert by expert."""
        return self.dispatch_weight.flatten(2).transpose(1, 2).to(tokens.dtype) @ tokens


def away_from_zero(gates: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Gates that can be divided by their sum: those of extreme logits are 0, or too small for a gradient."""
    return gates.clamp(min=torch.finfo(gates.dtype).tiny ** 0.5)


def _by_expert(slots: Shaped[Tensor, "G E C"]) -> Shaped[Tensor, "E N"]:
    return slots.transpose(0, 1).flatten(1)
