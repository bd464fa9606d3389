"""The routers that seat by a transport plan: it says who is seated, the gates weigh."""

from typing import cast

import pytest
import torch

from routerbench.build import build_router
from routerbench.moe.plan import SparsePlan
from routerbench.moe.scorer import gates_of
from routerbench.moe.slots import seat_by_expert, seat_by_token
from routerbench.moe.sparse import SparseRouter
from routerbench.moe.transport import sinkhorn_plan, sparse_plan, sparse_plan_by_token

ROUTERS = ("sinkhorn_token_choice", "sinkhorn_expert_choice", "sparse_expert_choice")


def router_of(name: str, **settings: float | str) -> SparseRouter:
    return cast("SparseRouter", build_router(name, width=8, num_experts=4, **settings).eval())


def plan_of(router: SparseRouter, tokens: torch.Tensor) -> SparsePlan:
    return cast("SparsePlan", router(tokens).plan)


def seated(router: SparseRouter, logits: torch.Tensor) -> SparsePlan:
    """The plan of tokens with these logits."""
    gates = gates_of(logits)
    return router.seat(router.affinity(logits, gates), gates)


def test_sinkhorn_token_choice_by_hand() -> None:
    # Weights 4 : 1 and 3 : 2: both tokens lean to expert 0. One iteration divides the columns by 7 and 3:
    # (4/7, 1/3) and (3/7, 2/3), so the plan sends token 1 to expert 1, at its gate of 2/5.
    logits = torch.tensor([[[4.0, 1.0], [3.0, 2.0]]]).log()
    router = cast("SparseRouter", build_router("sinkhorn_token_choice", 1, 2, num_iterations=1, capacity=1))
    plan = seated(router, logits)
    assert plan.token.tolist() == [[[0], [1]]]
    assert plan.filled.all()
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.8], [0.4]]]))
    # Softmax Token Choice drops token 1.
    gates = gates_of(logits)
    dropped = seat_by_token(gates, gates, top_k=1, capacity=1, batch_priority=False, normalize_combine=False)
    assert dropped.served.tolist() == [[1, 0]]


def test_sinkhorn_token_choice_with_batch_priority_by_hand() -> None:
    # Tokens 0 and 1 choose expert 0, which has one slot, with weights 9 : 2 and 6 : 1. The columns sum to 16
    # and 12, so odds of 4.5 and 6 become 3.375 and 4.5: token 1 is the surer one.
    logits = torch.tensor([[[9.0, 2.0], [6.0, 1.0], [1.0, 9.0]]]).log()
    for batch_priority, first in ((True, 1), (False, 0)):
        settings = {"num_iterations": 1, "batch_priority": batch_priority, "capacity": 1}
        plan = seated(cast("SparseRouter", build_router("sinkhorn_token_choice", 1, 2, **settings)), logits)
        assert plan.token.tolist() == [[[first], [2]]]


@pytest.mark.parametrize("batch_priority", [False, True])
def test_sinkhorn_token_choice_seats_by_the_plan(batch_priority: bool) -> None:
    router = router_of(
        "sinkhorn_token_choice", top_k=2, batch_priority=batch_priority, num_iterations=7, regularisation=0.5
    )
    tokens = 3 * torch.randn(2, 16, 8)
    logits = router.scorer(tokens).clean
    gates = gates_of(logits)
    expected = seat_by_token(
        sinkhorn_plan(logits, 7, 0.5),
        gates,
        top_k=2,
        capacity=8,
        batch_priority=batch_priority,
        normalize_combine=False,
    )
    plan = plan_of(router, tokens)
    assert torch.equal(plan.token, expected.token)
    assert torch.equal(plan.weight, expected.weight)
    by_gates = seat_by_token(
        gates, gates, top_k=2, capacity=8, batch_priority=batch_priority, normalize_combine=False
    )
    assert not torch.equal(plan.token, by_gates.token)


def test_sinkhorn_expert_choice_seats_by_the_plan() -> None:
    router = router_of("sinkhorn_expert_choice", num_iterations=7, regularisation=0.5)
    tokens = 3 * torch.randn(2, 16, 8)
    logits = router.scorer(tokens).clean
    gates = gates_of(logits)
    expected = seat_by_expert(sinkhorn_plan(logits, 7, 0.5), gates, capacity=4, normalize_combine=False)
    plan = plan_of(router, tokens)
    assert torch.equal(plan.token, expected.token)
    assert torch.equal(plan.weight, expected.weight)
    assert not torch.equal(
        plan.token, seat_by_expert(gates, gates, capacity=4, normalize_combine=False).token
    )


def test_sparse_expert_choice_seats_by_the_plan() -> None:
    router = router_of("sparse_expert_choice", num_iterations=9, learning_rate=0.1)
    tokens = 3 * torch.randn(2, 16, 8)
    gates = gates_of(router.scorer(tokens).clean)
    expected = seat_by_expert(sparse_plan(gates, 4, 9, 0.1), gates, capacity=4, normalize_combine=False)
    plan = plan_of(router, tokens)
    assert torch.equal(plan.token, expected.token)
    assert torch.equal(plan.weight, expected.weight)
    assert not torch.equal(
        plan.token, seat_by_expert(gates, gates, capacity=4, normalize_combine=False).token
    )


def test_zeros_of_a_sparse_plan_fill_what_slots_are_left() -> None:
    # Each token is sure of its expert, so the plan is the identity; two slots each take the other token too.
    gates = torch.eye(2)[None]
    router = cast("SparseRouter", build_router("sparse_expert_choice", 1, 2, capacity=2))
    plan = seated(router, gates.log())
    assert plan.token.tolist() == [[[0, 1], [1, 0]]]
    assert plan.weight.tolist() == [[[1, 0], [1, 0]]]
    assert plan.filled.all()


@pytest.mark.parametrize("name", ["sinkhorn_expert_choice", "sinkhorn_token_choice"])
def test_the_noise_of_training_enters_the_plan(name: str) -> None:
    router = router_of(name, noise_std=20.0).train()
    tokens = torch.randn(1, 16, 8)
    torch.manual_seed(1)
    plan = plan_of(router, tokens)
    torch.manual_seed(1)
    logits = router.scorer(tokens)
    expected = seated(router, logits.noisy)
    assert torch.equal(plan.token, expected.token)
    assert torch.equal(plan.weight, expected.weight)
    assert not torch.equal(plan.token, seated(router, logits.clean).token)


@pytest.mark.parametrize("name", ROUTERS)
def test_no_gradient_passes_through_the_plan(name: str) -> None:
    router = router_of(name)
    tokens = torch.randn(2, 16, 8)
    plan = plan_of(router, tokens)
    plan.weight.square().sum().backward()
    scorer_weight = router.scorer.get_parameter("weight")
    assert scorer_weight.grad is not None
    through_gates = scorer_weight.grad.clone()
    router.zero_grad()
    gates = gates_of(router.scorer(tokens).clean)
    weight = gates.transpose(1, 2).gather(2, plan.token).masked_fill(~plan.filled, 0)
    weight.square().sum().backward()
    torch.testing.assert_close(scorer_weight.grad, through_gates)


@pytest.mark.parametrize("name", [*ROUTERS, "sparse_token_choice"])
def test_a_routing_says_how_far_its_plan_is_from_the_marginals(name: str) -> None:
    router = router_of(name)
    tokens = 3 * torch.randn(2, 16, 8)
    routing = router(tokens)
    logits = router.scorer(tokens).clean
    plan = router.affinity(logits, gates_of(logits))
    rows, columns = plan.sum(2), plan.sum(1) / 4
    assert set(routing.measures) == {"row_residual", "column_residual"}
    torch.testing.assert_close(routing.measures["row_residual"], (rows - 1).abs().amax(1).mean())
    torch.testing.assert_close(routing.measures["column_residual"], (columns - 1).abs().amax(1).mean())
    if name.startswith("sparse"):  # twenty steps of Adam are far from the side that is not exact
        assert max(routing.measures.values()) > 1e-2


@pytest.mark.parametrize("name", ["sparse_expert_choice", "sparse_token_choice"])
def test_newton_keeps_the_marginals(name: str) -> None:
    choices = {"top_k": 2} if "token" in name else {"capacity_factor": 1.5}
    router = router_of(name, solver="newton", **choices)
    measures = router(3 * torch.randn(2, 16, 8)).measures
    assert measures["row_residual"] < 1e-3
    assert measures["column_residual"] < 1e-3


def test_sparse_token_choice_seats_by_the_plan() -> None:
    router = router_of("sparse_token_choice", num_iterations=9, learning_rate=0.1, top_k=2)
    tokens = 3 * torch.randn(2, 16, 8)
    gates = gates_of(router.scorer(tokens).clean)
    affinity = sparse_plan_by_token(gates, 2, 9, 0.1)
    expected = seat_by_token(
        affinity, gates, top_k=2, capacity=8, batch_priority=False, normalize_combine=False
    )
    plan = plan_of(router, tokens)
    assert torch.equal(plan.token, expected.token)
    assert torch.equal(plan.weight, expected.weight)
