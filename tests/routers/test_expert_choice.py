"""Expert Choice against the published code."""

from typing import TYPE_CHECKING, cast

import pytest
import torch

from routerbench.build import build_router
from routerbench.moe.layer import MoE
from routerbench.moe.plan import SparsePlan
from routerbench.moe.slots import seat_by_expert
from routerbench.routers.expert_choice import ExpertChoice

if TYPE_CHECKING:
    from tests.conftest import Golden, ReadGolden

SINGLE = pytest.mark.parametrize("dtype", [torch.float32], ids=["fp32"])
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


def router_of(case: "Golden") -> ExpertChoice:
    meta = case.meta
    router = build_router(
        "expert_choice",
        width=meta["D"],
        num_experts=meta["E"],
        capacity_factor=meta["capacity_factor"],
        capacity_rounding=meta["ceil_or_round"],
        capacity_multiple_of=meta["multiple_of"],
    )
    router = cast("ExpertChoice", router.to(case.dtype).eval())
    router.scorer.load_state_dict({"weight": case.input("router_kernel").T})
    return router


@pytest.fixture(params=["ec_cf1", "ec_cf2"])
def case(request: pytest.FixtureRequest, dtype: torch.dtype, golden: "ReadGolden") -> "Golden":
    return golden(request.param, dtype)


def plan_of(case: "Golden") -> SparsePlan:
    return cast("SparsePlan", router_of(case)(case.input("x")).plan)


def check_seats(case: "Golden", plan: SparsePlan) -> None:
    dispatch, combine = plan.dense()
    assert plan.num_slots == case.output("capacity")
    case.check("top_items_index", plan.token)
    case.check("top_items_gate", plan.weight)
    case.check("dispatch_mask", dispatch)
    case.check("combine_weights", combine)
    case.check("metric_min_selected_gate", plan.weight.amin((1, 2)))
    case.check("metric_max_selected_gate", plan.weight.amax((1, 2)))


def check_service(case: "Golden", plan: SparsePlan) -> None:
    case.check("metric_num_experts_per_item_min", plan.served.amin(1))
    case.check("metric_num_experts_per_item_max", plan.served.amax(1))
    for count in (1, 2, 4):
        share = (plan.served >= count).to(case.dtype).mean(1)
        case.check(f"metric_ratio_processed_items_by_at_least_{count}_experts", share)
    assert (plan.served == 0).sum() == case.meta["unprocessed_tokens"]


@PRECISIONS
def test_scores_and_seats(case: "Golden") -> None:
    case.check("logits", router_of(case).scorer(case.input("x")).clean)
    plan = plan_of(case)
    case.check("gates", plan.gates)
    check_seats(case, plan)
    check_service(case, plan)


@SINGLE
def test_slots(case: "Golden") -> None:
    # Their order of slots is ours unless E divides G, which no stored case has.
    assert case.meta["G"] % case.meta["E"]
    slots = plan_of(case).dispatch(case.input("x"))
    assert torch.equal(slots, case.output("expert_inputs"))
    case.check("expert_outputs", case.experts()(slots))


@PRECISIONS
def test_layer_and_gradients(case: "Golden") -> None:
    router = router_of(case)
    layer = MoE(router, case.experts())
    case.check_layer(layer)
    if case.has_gradients:
        gradient = router.scorer.get_parameter("weight").grad
        assert gradient is not None
        case.check("grad_router_kernel", gradient.T)


@SINGLE
def test_data_in_bfloat16(case: "Golden") -> None:
    plan, experts = plan_of(case), case.experts()
    y = plan.combine(experts(plan.dispatch(case.input("x").bfloat16()).float()).bfloat16())
    # An expert's output near a rounding boundary may round the other way.
    case.check("y_bf16", y, 2e-3)


@PRECISIONS
def test_equal_gates(golden: "ReadGolden", dtype: torch.dtype) -> None:
    case = golden("ec_cf1_ties", dtype)
    gates = case.output("gates")
    plan = seat_by_expert(gates, gates, capacity=case.meta["capacity"], normalize_combine=False)
    check_seats(case, plan)
    check_service(case, plan)
    slots = plan.dispatch(case.input("x"))
    case.check("y", plan.combine(case.experts()(slots)))
    if dtype == torch.float32:
        assert torch.equal(slots, case.output("expert_inputs"))
        case.check("expert_outputs", case.experts()(slots))
