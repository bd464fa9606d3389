"""Token Choice against the published code."""

from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from routerbench.build import build_router
from routerbench.moe.layer import MoE
from routerbench.moe.losses import gshard_loss, importance_loss, load_loss
from routerbench.moe.plan import SparsePlan
from routerbench.moe.ranking import largest
from routerbench.moe.slots import seat_by_token
from routerbench.routers.token_choice import TokenChoice

if TYPE_CHECKING:
    from tests.conftest import Golden, ReadGolden

CASES = ("tc_k1_van_cf1", "tc_k1_bpr_cf0p5", "tc_k2_van_cf1p05", "tc_k2_bpr_cf1", "tc_k2_noise_van_cf1p05")
SINGLE = pytest.mark.parametrize("dtype", [torch.float32], ids=["fp32"])
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


def router_of(case: "Golden") -> TokenChoice:
    meta = case.meta
    router = build_router(
        "token_choice",
        width=meta["D"],
        num_experts=meta["E"],
        top_k=meta["k"],
        batch_priority=meta["batch_priority"],
        capacity_factor=meta["capacity_factor"],
        capacity_rounding=meta["ceil_or_round"],
        capacity_multiple_of=meta["multiple_of"],
        noise_std=meta["noise_std"] or 0.0,
        importance_weight=meta["importance_loss_weight"],
        load_weight=meta["load_loss_weight"],
        gshard_weight=meta["gshard_loss_weight"],
    )
    router = cast("TokenChoice", router.to(case.dtype).train(not meta["deterministic"]))
    router.scorer.load_state_dict({"weight": case.input("router_kernel").T})
    return router


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest,
    dtype: torch.dtype,
    golden: "ReadGolden",
    monkeypatch: pytest.MonkeyPatch,
) -> "Golden":
    case = golden(request.param, dtype)
    if "noise" in case.arrays:
        monkeypatch.setattr(torch, "randn_like", lambda _: case.input("noise"))
    return case


def plan_of(case: "Golden") -> SparsePlan:
    return cast("SparsePlan", router_of(case)(case.input("x")).plan)


def positions(plan: SparsePlan, choice: Tensor) -> Tensor:
    """The slot of each choice (G, S, K), -1 where it was dropped."""
    dispatch, _ = plan.dense()
    slot = torch.where(dispatch.any(-1), dispatch.argmax(-1), -1)
    return slot.gather(2, choice)


@PRECISIONS
def test_scores_and_choices(case: "Golden") -> None:
    case.check("logits", router_of(case).scorer(case.input("x")).clean)
    plan = plan_of(case)
    case.check("gates", plan.gates)
    choice = largest(plan.gates, case.meta["k"], dim=-1)
    case.check("topk_index", choice)
    case.check("topk_weight", plan.gates.gather(2, choice))


@PRECISIONS
def test_seats(case: "Golden") -> None:
    plan = plan_of(case)
    choice = case.output("topk_index").long()
    slot = positions(plan, choice)
    assert plan.num_slots == case.output("capacity")
    case.check("kept", slot >= 0)
    kept = case.output("kept")
    assert torch.equal(slot[kept], case.output("buffer_index")[kept].long())
    assert (plan.load.sum(1) + (~kept).sum((1, 2)) == choice[0].numel()).all()


@PRECISIONS
def test_queues_behind_the_last_slot(case: "Golden") -> None:
    # With a slot for every token nobody is dropped, and each sits where the published queue has him.
    meta = case.meta
    plan = seat_by_token(
        case.output("gates"),
        case.output("gates"),
        top_k=meta["k"],
        capacity=meta["S"],
        batch_priority=meta["batch_priority"],
        normalize_combine=False,
    )
    case.check("buffer_index", positions(plan, case.output("topk_index").long()))


@PRECISIONS
def test_dense_tensors(case: "Golden") -> None:
    dispatch, combine = plan_of(case).dense()
    case.check("dispatch_mask", dispatch)
    case.check("combine_weights", combine)


@SINGLE
def test_slots(case: "Golden") -> None:
    # Their order of slots is ours unless E divides G, which no stored case has.
    assert case.meta["G"] % case.meta["E"]
    slots = plan_of(case).dispatch(case.input("x"))
    assert torch.equal(slots, case.output("expert_inputs"))
    case.check("expert_outputs", case.experts()(slots))


@PRECISIONS
def test_losses_of_each_group(case: "Golden") -> None:
    router = router_of(case)
    logits = router.scorer(case.input("x"))
    by_group = [slice(g, g + 1) for g in range(case.meta["G"])]
    gates, noisy_gates = logits.clean.softmax(-1), logits.noisy.softmax(-1)
    case.check("importance_loss", torch.stack([importance_loss(gates[g]) for g in by_group]))
    # The published share of first choices is computed in float32.
    case.check("gshard_loss", torch.stack([gshard_loss(noisy_gates[g]) for g in by_group]), 3e-7)
    losses = router(case.input("x")).losses
    case.check("auxiliary_loss", torch.stack([_losses(router, case, g) for g in by_group]))
    assert set(losses) == ({"importance", "load"} if case.meta["noise_std"] else {"importance"})
    if case.meta["noise_std"]:
        load = [
            load_loss(logits.clean[g], logits.noisy[g], logits.noise_std, case.meta["k"]) for g in by_group
        ]
        case.check("load_loss", torch.stack(load))


def _losses(router: TokenChoice, case: "Golden", group: slice) -> Tensor:
    logits = router.scorer(case.input("x"))
    part = type(logits)(logits.clean[group], logits.noisy[group], logits.noise_std)
    return torch.stack(list(router.loss_weights.losses(part, case.meta["k"]).values())).sum()


@PRECISIONS
def test_layer_and_gradients(case: "Golden") -> None:
    router = router_of(case)
    case.check_layer(MoE(router, case.experts()))
    if case.has_gradients:
        gradient = router.scorer.get_parameter("weight").grad
        assert gradient is not None
        case.check("grad_router_kernel", gradient.T)


@SINGLE
def test_output_by_indices(case: "Golden") -> None:
    case.check("y_indices", MoE(router_of(case), case.experts())(case.input("x")))


@SINGLE
def test_data_in_bfloat16(case: "Golden") -> None:
    plan, experts = plan_of(case), case.experts()
    slots = plan.dispatch(case.input("x").bfloat16())
    y = plan.combine(experts(slots.float()).bfloat16())
    # An expert's output near a rounding boundary may round the other way.
    case.check("y_bf16", y, 2e-3)


@PRECISIONS
def test_equal_gates(golden: "ReadGolden", dtype: torch.dtype) -> None:
    case = golden("tc_k2_ties_bpr", dtype)
    gates, k = case.output("gates"), case.meta["k"]
    plan = seat_by_token(
        gates,
        gates,
        top_k=k,
        capacity=case.meta["capacity"],
        batch_priority=case.meta["batch_priority"],
        normalize_combine=False,
    )
    dispatch, combine = plan.dense()
    choice = largest(gates, k, dim=-1)
    case.check("topk_index", choice)
    case.check("topk_weight", gates.gather(2, choice))
    case.check("dispatch_mask", dispatch)
    case.check("combine_weights", combine)
    case.check("kept", positions(plan, choice) >= 0)
    everyone = seat_by_token(
        gates, gates, top_k=k, capacity=case.meta["S"], batch_priority=True, normalize_combine=False
    )
    case.check("buffer_index", positions(everyone, choice))
    case.check("y", plan.combine(case.experts()(plan.dispatch(case.input("x")))))
    case.check("importance_loss", torch.stack([importance_loss(g[None]) for g in gates]))
    case.check("gshard_loss", torch.stack([gshard_loss(g[None]) for g in gates]), 3e-7)


def all_experts(case: "Golden") -> MoE:
    meta = case.meta
    router = build_router("token_choice", meta["D"], meta["E"], top_k=meta["E"], capacity=meta["S"])
    router.load_state_dict({"scorer.weight": case.input("router_kernel").T})
    return MoE(router.to(case.dtype).eval(), case.experts())


@PRECISIONS
def test_every_token_in_every_expert(golden: "ReadGolden", dtype: torch.dtype) -> None:
    case = golden("dense_all_experts", dtype)
    layer = all_experts(case)
    case.check_layer(layer)
    case.check("logits", cast("TokenChoice", layer.router).scorer(case.input("x")).clean)
    case.check("gates", layer.router(case.input("x")).plan.gates)


def test_slots_of_every_token_in_every_expert(golden: "ReadGolden") -> None:
    case = golden("dense_all_experts", torch.float32)
    layer = all_experts(case)
    plan = cast("SparsePlan", layer.router(case.input("x")).plan)
    # The reference gives slot s to token s; here the queue decides, so look up each slot's token.
    row = plan.token + case.meta["S"] * torch.arange(case.meta["G"])[:, None, None]
    row = row.transpose(0, 1).flatten(1)
    expert = torch.arange(case.meta["E"])[:, None]
    slots = plan.dispatch(case.input("x"))
    assert torch.equal(slots, case.output("expert_inputs")[expert, row])
    assert_close(layer.experts(slots), case.output("expert_outputs")[expert, row], atol=2e-5, rtol=2e-5)
