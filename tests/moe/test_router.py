"""What a Router does around the forward pass of a method; methods are in test_router_contract."""

from typing import Any

import pytest
import torch
from torch import Tensor

from routerbench.moe.plan import SoftPlan
from routerbench.moe.router import Router, Routing


class Spy(Router):
    """One slot for everything; notes what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Any] = {}

    def forward(self, tokens: Tensor) -> Routing:
        self.seen = {"dtype": tokens.dtype, "product": (tokens @ tokens.mT).dtype}
        even = tokens.new_ones(*tokens.shape[:2], 1, 1)
        return Routing(SoftPlan(even / tokens.shape[1], even), {})


@pytest.mark.parametrize(
    ("given", "routed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_a_router_works_in_single_precision_at_least(given: torch.dtype, routed: torch.dtype) -> None:
    router = Spy()
    with torch.autocast("cpu", torch.bfloat16):
        router(torch.ones(1, 2, 3, dtype=given))
    assert router.seen == {"dtype": routed, "product": routed}


def test_autocast_is_on_again_afterwards() -> None:
    router = Spy()
    with torch.autocast("cpu", torch.bfloat16):
        router(torch.ones(1, 2, 3))
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_a_device_without_autocast_is_no_obstacle() -> None:
    assert Spy()(torch.ones(1, 2, 3, device="meta")).plan.gates.is_meta
