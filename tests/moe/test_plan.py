"""Plans carry tokens as their dense tensors say."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from routerbench.moe.plan import SoftPlan, SparsePlan


@pytest.fixture
def plan() -> SparsePlan:
    """Two experts with two slots: expert 0 holds tokens 2 and 0, expert 1 token 2; token 1 is dropped."""
    return SparsePlan(
        token=torch.tensor([[[2, 0], [2, 0]]]),
        weight=torch.tensor([[[0.5, 0.75], [0.25, 0.0]]]),
        filled=torch.tensor([[[True, True], [True, False]]]),
        gates=torch.tensor([[[0.75, 0.25], [0.5, 0.5], [0.5, 0.25]]]),
        asked=torch.tensor([[3, 1]]),
    )


TOKENS = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])


def test_sparse_dispatch_by_hand(plan: SparsePlan) -> None:
    # The empty slot names token 0, but is zero.
    expected = [[[3, 30], [1, 10]], [[3, 30], [0, 0]]]
    assert plan.dispatch(TOKENS).tolist() == expected


def test_sparse_combine_by_hand(plan: SparsePlan) -> None:
    # Token 0: 0.75 * 4. Token 2: 0.5 * 2 + 0.25 * 8. What the empty slot gives (100) goes nowhere.
    slots = torch.tensor([[[2.0], [4.0]], [[8.0], [100.0]]])
    assert plan.combine(slots).tolist() == [[[3], [0], [3]]]


def test_sparse_dense_by_hand(plan: SparsePlan) -> None:
    dispatch, combine = plan.dense()
    # By token: expert 0's slots, expert 1's slots.
    assert dispatch.tolist() == [[[[0, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 0], [1, 0]]]]
    assert combine.tolist() == [[[[0, 0.75], [0, 0]], [[0, 0], [0, 0]], [[0.5, 0], [0.25, 0]]]]


def test_what_a_sparse_plan_says_of_itself(plan: SparsePlan) -> None:
    assert plan.num_slots == 2
    assert plan.demand.tolist() == [[3, 1]]
    assert plan.load.tolist() == [[2, 1]]
    assert plan.served.tolist() == [[1, 0, 2]]


def test_slots_of_a_group_are_contiguous() -> None:
    # Two groups of one token each, one expert with two slots: group 0's slots come first.
    plan = SparsePlan(
        token=torch.zeros(2, 1, 2, dtype=torch.int64),
        weight=torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]),
        filled=torch.tensor([[[True, False]], [[True, False]]]),
        gates=torch.ones(2, 1, 1),
        asked=torch.ones(2, 1, dtype=torch.int64),
    )
    tokens = torch.tensor([[[5.0]], [[7.0]]])
    assert plan.dispatch(tokens).tolist() == [[[5], [0], [7], [0]]]
    soft = SoftPlan(torch.ones(2, 1, 1, 2), torch.full((2, 1, 1, 2), 0.5))
    assert soft.dispatch(tokens).tolist() == [[[5], [5], [7], [7]]]
    assert soft.combine(torch.tensor([[[1.0], [3.0], [10.0], [20.0]]])).tolist() == [[[2]], [[15]]]


@pytest.fixture
def soft() -> SoftPlan:
    """Two tokens, two experts with one slot: quarters and three quarters."""
    dispatch = torch.tensor([[[[0.25], [0.5]], [[0.75], [0.5]]]])
    combine = torch.tensor([[[[0.125], [0.875]], [[0.75], [0.25]]]])
    return SoftPlan(dispatch, combine)


def test_soft_dispatch_and_combine_by_hand(soft: SoftPlan) -> None:
    # Expert 0: 0.25 * 4 + 0.75 * 8. Expert 1: 0.5 * 4 + 0.5 * 8.
    assert soft.dispatch(torch.tensor([[[4.0], [8.0]]])).tolist() == [[[7]], [[6]]]
    # Token 0: 0.125 * 16 + 0.875 * 8. Token 1: 0.75 * 16 + 0.25 * 8.
    assert soft.combine(torch.tensor([[[16.0]], [[8.0]]])).tolist() == [[[9], [14]]]


def test_what_a_soft_plan_says_of_itself(soft: SoftPlan) -> None:
    assert soft.num_slots == 1
    assert soft.gates.tolist() == [[[0.125, 0.875], [0.75, 0.25]]]
    assert soft.demand.tolist() == [[0.875, 1.125]]
    assert soft.load.tolist() == [[1, 1]]
    assert soft.served.tolist() == [[0.75, 1.25]]


@pytest.mark.parametrize("slots", [torch.bfloat16, torch.float16])
def test_outputs_come_home_in_the_precision_of_the_weights(
    plan: SparsePlan, soft: SoftPlan, slots: torch.dtype
) -> None:
    assert plan.dispatch(TOKENS.to(slots)).dtype == slots
    assert plan.combine(torch.ones(2, 2, 1, dtype=slots)).dtype == torch.float32
    assert soft.combine(torch.ones(2, 1, 1, dtype=slots)).dtype == torch.float32


def test_a_plan_cannot_be_changed(plan: SparsePlan) -> None:
    with pytest.raises(FrozenInstanceError):
        plan.weight = plan.weight * 2  # pyright: ignore[reportAttributeAccessIssue]
