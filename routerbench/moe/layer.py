"""The MoE layer: group, route, dispatch, compute, combine."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from routerbench.moe.backends import BACKENDS
from routerbench.moe.experts import Experts
from routerbench.moe.router import Router, Routing


class MoE(nn.Module):
    """An MLP of experts for tokens of any layout `(B, ..., D)`; the output has the shape of the input.

    `group` says which tokens are routed together: those of one `"image"`, or of a number of images. What
    a batch leaves over is a smaller group, with the capacity of its size. Raises ValueError for a group
    that is neither, or that the router cannot take, and for a router of another number of experts.
    """

    def __init__(
        self, router: Router, experts: Experts, group: str | int = "image", backend: str = "bmm"
    ) -> None:
        super().__init__()
        check_group(group)
        if group not in ("image", 1) and not router.spans_images:
            raise ValueError(
                f"group={group} would mix images: {type(router).__name__} routes each alone, group=image"
            )
        num_experts = getattr(router, "num_experts", experts.num_experts)
        if num_experts != experts.num_experts:
            raise ValueError(
                f"num_experts={experts.num_experts} of the experts is not that of the router, {num_experts}"
            )
        self.backend = backend
        self.router = router
        self.experts = experts
        self.images_per_group = 1 if group == "image" else int(group)
        self.routing: Routing | None = None
        """The latest decision; its plan is that of the full groups where a batch also left a smaller one."""

    def forward(self, x: Float[Tensor, "B ... D"]) -> Float[Tensor, "B ... D"]:
        """Route the tokens of each group alone and give back the weighted outputs of their experts."""
        num_groups, remainder = divmod(len(x), self.images_per_group)
        if remainder == 0 or num_groups == 0:
            y, self.routing = self._route(x, remainder or self.images_per_group)
            return y
        whole, routing = self._route(x[:-remainder], self.images_per_group)
        rest, smaller = self._route(x[-remainder:], remainder)
        losses = {
            name: (num_groups * loss + smaller.losses[name]) / (num_groups + 1)
            for name, loss in routing.losses.items()
        }
        self.routing = Routing(routing.plan, losses, routing.measures)
        return torch.cat([whole, rest])

    def _route(
        self, x: Float[Tensor, "B ... D"], images_per_group: int
    ) -> tuple[Float[Tensor, "B ... D"], Routing]:
        tokens = x.reshape(len(x) // images_per_group, -1, x.shape[-1])
        routing = self.router(tokens)
        y = BACKENDS[self.backend](routing.plan, self.experts, tokens)
        return y.to(x.dtype).view(x.shape), routing

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the latest decision, which holds a graph that cannot be copied."""
        return {**super().__getstate__(), "routing": None}


class ChannelsFirst(nn.Module):
    """An MoE layer where the backbone's MLP sees `(B, D, H, W)`."""

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.moe = moe

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        """Route the positions of the feature map."""
        return self.moe(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Skip(nn.Module):
    """A module and a skip around it, as of a depthwise convolution before a gate (Videau et al. 2025)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The sum of what comes in and what comes out."""
        return x + self.inner(x)


def check_group(group: object) -> None:
    """Raise ValueError unless `group` is "image" or a number of images."""
    if group != "image" and (not isinstance(group, int) or isinstance(group, bool) or group < 1):
        raise ValueError(f"group={group} is neither image nor a number of images")
