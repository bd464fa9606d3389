"""Controls, which learn nothing: a router that does not beat them has learnt nothing."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from routerbench.checks import check_count
from routerbench.moe.router import Router, Routing
from routerbench.moe.slots import Capacity, fill_slots


class PositionRouter(Router, ABC):
    """Chooses `top_k` experts by a token's position in its group alone, and weighs them equally."""

    changeable: ClassVar[frozenset[str]] = frozenset({"capacity_factor", "dropless"})

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        top_k: int,
        capacity_factor: float,
        capacity: int | None,
        capacity_rounding: str,
        capacity_multiple_of: int,
        capacity_factor_eval: float | None,
        dropless: bool,
    ) -> None:
        super().__init__()
        check_count("width", width)
        check_count("num_experts", num_experts)
        check_count("top_k", top_k, num_experts, "num_experts")
        self.num_experts = num_experts
        self.top_k = self.experts_per_token = top_k
        self.capacity = Capacity(
            capacity_factor, capacity, capacity_rounding, capacity_multiple_of, capacity_factor_eval, dropless
        )

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Seat the chosen experts in the tokens' order."""
        num_groups, num_tokens, _ = tokens.shape
        choice = self.choose(num_tokens, tokens.device).expand(num_groups, -1, -1)
        gates = F.one_hot(choice, self.num_experts).sum(2).to(tokens.dtype) / self.top_k
        order = torch.arange(num_tokens, device=tokens.device).expand(num_groups, -1)
        capacity = self.capacity.slots(
            num_tokens * self.top_k, self.num_experts, num_tokens, training=self.training
        )
        return Routing(fill_slots(choice, order, gates, capacity), {})

    @abstractmethod
    def choose(self, num_tokens: int, device: torch.device) -> Int[Tensor, "S K"]:
        """The experts of each position."""


class Hash(PositionRouter):
    """The position modulo the number of experts, and the experts after it (after Roller et al. 2021)."""

    def choose(self, num_tokens: int, device: torch.device) -> Int[Tensor, "S K"]:
        """Experts position, position + 1, ... modulo E."""
        position, choice = torch.arange(num_tokens, device=device), torch.arange(self.top_k, device=device)
        return (position[:, None] + choice) % self.num_experts


class Random(PositionRouter):
    """Experts drawn at random for each position, once: the draw is part of the model's state."""

    def __init__(self, width: int, num_experts: int, **settings: int | float | str | None) -> None:
        super().__init__(width, num_experts, **settings)  # pyright: ignore[reportArgumentType]
        self.seed = int(torch.randint(2**31, (), device="cpu"))

    def choose(self, num_tokens: int, device: torch.device) -> Int[Tensor, "S K"]:
        """The first `top_k` of a random order of the experts, in which a longer group only adds positions."""
        return _random_orders(self.seed, num_tokens, self.num_experts)[:, : self.top_k].to(device)

    def get_extra_state(self) -> Tensor:
        """The seed of the draw, which a checkpoint keeps."""
        return torch.tensor(self.seed, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take the draw of a checkpoint."""
        self.seed = int(state)


@torch.library.custom_op("routerbench::random_orders", mutates_args=())
def _random_orders(seed: int, num_tokens: int, num_experts: int) -> Tensor:
    """A random order of the experts (S, E) for each position, on the CPU; one step of a compiled model."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_tokens, num_experts, generator=generator, device="cpu").argsort(dim=-1)


@_random_orders.register_fake
def _(seed: int, num_tokens: int, num_experts: int) -> Tensor:
    return torch.empty(num_tokens, num_experts, dtype=torch.int64, device="cpu")
