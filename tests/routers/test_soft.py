"""Soft MoE against the published code, and the shape of its slots."""

from typing import TYPE_CHECKING, cast

import pytest
import torch

from routerbench.build import build_router
from routerbench.moe.layer import MoE
from routerbench.moe.plan import SoftPlan
from routerbench.routers.soft import Soft

if TYPE_CHECKING:
    from tests.conftest import Golden, ReadGolden

SINGLE = pytest.mark.parametrize("dtype", [torch.float32], ids=["fp32"])
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


def router_of(case: "Golden") -> Soft:
    meta = case.meta
    router = build_router(
        "soft",
        width=meta["D"],
        num_experts=meta["E"],
        slots_per_expert=meta["num_slots_arg"],
        capacity_factor=meta["capacity_factor"],
        capacity_rounding="round",
    )
    router(case.input("x"))  # the first tokens decide the slots where their number is not given
    router = cast("Soft", router.to(case.dtype))
    router.load_state_dict({"phi": case.input("mu"), "scale": case.input("scale")})
    return router


@pytest.fixture(params=["soft_p1", "soft_p2", "soft_cf1_auto"])
def case(request: pytest.FixtureRequest, dtype: torch.dtype, golden: "ReadGolden") -> "Golden":
    return golden(request.param, dtype)


def plan_of(case: "Golden") -> SoftPlan:
    return cast("SoftPlan", router_of(case)(case.input("x")).plan)


@PRECISIONS
def test_weights(case: "Golden") -> None:
    plan = plan_of(case)
    assert plan.num_slots == case.meta["P"]
    dispatch, combine = plan.dense()
    case.check("dispatch_weights", dispatch)
    case.check("combine_weights", combine)
    # A softmax keeps the logits but for a constant: over the tokens of a slot, over the slots of a token.
    logits = case.output("logits")
    case.check("logits", dispatch.log() + logits.logsumexp(1, keepdim=True))
    case.check("logits", combine.log() + logits.logsumexp((2, 3), keepdim=True))


@SINGLE
def test_slots(case: "Golden") -> None:
    # Their order of slots is ours unless E divides G, which no stored case has.
    assert case.meta["G"] % case.meta["E"]
    slots = plan_of(case).dispatch(case.input("x"))
    case.check("expert_inputs", slots)
    case.check("expert_outputs", case.experts()(slots))


@PRECISIONS
def test_layer_and_gradients(case: "Golden") -> None:
    router = router_of(case)
    case.check_layer(MoE(router, case.experts()))
    if case.has_gradients:
        assert router.phi.grad is not None
        assert router.scale.grad is not None
        case.check("grad_mu", router.phi.grad)
        case.check("grad_scale", router.scale.grad)


@SINGLE
def test_data_in_bfloat16(case: "Golden") -> None:
    plan, experts = plan_of(case), case.experts()
    slots = plan.dispatch(case.input("x").bfloat16().float())
    # An expert's output near a rounding boundary may round the other way.
    case.check("y_bf16", plan.combine(experts(slots).bfloat16()), 2e-3)


def test_slots_are_counted_by_hand() -> None:
    # Two tokens (1, 0) and (0, 2), of unit length (1, 0) and (0, 1); two experts with one slot each, whose
    # phi are (0, 3) and (4, 0), of unit length (0, 1) and (1, 0); scale log 3. So the logits are log 3 where
    # token and slot agree and 0 elsewhere: token 0 agrees with slot 1, token 1 with slot 0, and of 1 + 3
    # parts agreement gets 3.
    router = build_router("soft", width=2, num_experts=2, slots_per_expert=1)
    phi = torch.tensor([[[0.0], [4.0]], [[3.0], [0.0]]])
    router.load_state_dict({"phi": phi, "scale": torch.tensor(3.0).log()})
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    plan = router(tokens).plan
    agree = torch.tensor([[[[0.25], [0.75]], [[0.75], [0.25]]]])
    torch.testing.assert_close(plan.dense()[0], agree, atol=1e-5, rtol=0)
    torch.testing.assert_close(plan.dense()[1], agree, atol=1e-5, rtol=0)
    # Slots mix the tokens as they are, not their directions.
    mixed = torch.tensor([[[0.25, 1.5]], [[0.75, 0.5]]])
    torch.testing.assert_close(plan.dispatch(tokens), mixed, atol=1e-5, rtol=0)
    # A slot that gives (4, 0) and one that gives (0, 4) come home in shares of a quarter and three quarters.
    slots = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]]])
    home = torch.tensor([[[1.0, 3.0], [3.0, 1.0]]])
    torch.testing.assert_close(plan.combine(slots), home, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "num_slots"),
    [
        ({"slots_per_expert": 3}, 3),
        ({"capacity_factor": 1.0}, 3),  # 10 tokens over 4 experts are 2.5
        ({"capacity_factor": 1.0, "capacity_rounding": "round"}, 2),  # half to even
        ({"capacity_factor": 0.1}, 1),
        ({"capacity_factor": 1.0, "capacity_multiple_of": 4}, 4),
        ({"capacity_factor": 100.0}, 10),
    ],
)
def test_number_of_slots(settings: dict[str, float], num_slots: int) -> None:
    router = build_router("soft", width=8, num_experts=4, **settings)
    assert router(torch.randn(2, 10, 8)).plan.num_slots == num_slots


def test_the_first_tokens_decide_the_slots_for_good() -> None:
    router = build_router("soft", width=8, num_experts=4, capacity_factor=1.0)
    assert router(torch.randn(2, 16, 8)).plan.num_slots == 4
    assert router(torch.randn(2, 36, 8)).plan.num_slots == 4


def test_a_router_without_slots_takes_those_of_a_checkpoint() -> None:
    trained = build_router("soft", width=8, num_experts=4, slots_per_expert=3)
    router = build_router("soft", width=8, num_experts=4)
    router.load_state_dict(trained.state_dict())
    tokens = torch.randn(2, 10, 8)
    assert torch.equal(router(tokens).plan.dense()[1], trained(tokens).plan.dense()[1])
