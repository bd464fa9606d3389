"""The contract of a router: tokens in, a routing out."""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from routerbench.moe.plan import Plan


@dataclass(frozen=True)
class Routing:
    """What a router decided."""

    plan: Plan
    """Who sits where, with what weight."""
    losses: dict[str, Tensor]
    """Weighted scalars by name, already averaged over groups."""
    measures: dict[str, Tensor] = field(default_factory=dict)
    """What a method tells of itself beyond its plan: scalars by name, averaged over groups."""


class Router(nn.Module, ABC):
    """Decides which experts see which tokens; every group of tokens is routed alone."""

    spans_images: ClassVar[bool] = True
    """Whether a group may hold the tokens of several images."""
    experts_per_token: int | None = None
    """How many experts a token can have at most; None where nothing but their number limits it."""

    changeable: ClassVar[frozenset[str]] = frozenset()
    """Settings that may be another one after training, of those that a `Mode` has."""

    counts: ClassVar[tuple[str, ...]] = ()
    """Buffers that add up over the images of a step: with many processes each then has the sum of all."""

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Route the tokens of each group; a call of the router gives them in at least float32."""

    def after_step(self) -> None:
        """Called once after every step of the optimizer; most routers have nothing to do then."""

    def __call__(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Route in at least float32 with autocast off: low precision changes who is chosen."""
        device = tokens.device.type
        # The meta device, on which costs are counted, knows no autocast.
        known = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if known else nullcontext():
            return super().__call__(tokens.to(torch.promote_types(tokens.dtype, torch.float32)))


class SoftRouter(Router, ABC):
    """A router whose slots are mixtures, by the softmax of its logits over the tokens of a group."""

    @abstractmethod
    def logits(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S E P"]:
        """How much every token has to do with every slot, without noise."""
