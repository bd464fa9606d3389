"""Plans carry tokens as their dense tensors say."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from routerbench.moe.plan import SoftPlan, SparsePlan
from routerbench.moe.slots import seat_by_token


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
    assert plan.expert_share.tolist() == [[[1, 0], [0, 0], [1, 1]]]
    assert plan.served.tolist() == [[1, 0, 2]]
    assert plan.dropped.tolist() == [[False, True, False]]


def test_mixing_of_a_sparse_plan_by_hand(plan: SparsePlan) -> None:
    # Three filled slots hold tokens 2, 0, 2: of the three pairs one is alike.
    mixing = plan.mixing()
    assert (mixing.slot_entropy.item(), mixing.token_share.item()) == (0, 1)
    assert mixing.slot_similarity.item() == pytest.approx(1 / 3)


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
    # Of two tokens an even share is half a slot: token 0 has half of that of expert 0 and all of expert 1's.
    assert soft.expert_share.tolist() == [[[0.5, 1], [1.5, 1]]]
    assert soft.served.tolist() == [[1, 2]]
    assert soft.dropped.tolist() == [[False, False]]


def test_mixing_of_a_soft_plan_by_hand(soft: SoftPlan) -> None:
    mixing = soft.mixing()
    quarters = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert mixing.slot_entropy.item() == pytest.approx((quarters + 1) / 2)
    assert mixing.token_share.item() == pytest.approx((0.75 + 0.5) / 2)
    # (1, 3) and (1, 1) enclose the cosine 4 / sqrt(20).
    assert mixing.slot_similarity.item() == pytest.approx(4 / math.sqrt(20))


def test_the_mixing_of_a_sparse_plan_is_that_of_its_dense_tensors() -> None:
    gates = torch.randn(3, 12, 4).softmax(-1)
    plan = seat_by_token(gates, gates, top_k=2, capacity=4, batch_priority=False, normalize_combine=False)
    for group, (dispatch, filled) in enumerate(zip(plan.dense()[0], plan.filled, strict=True)):
        mixtures = dispatch[:, filled][None, :, :, None]
        soft = SoftPlan(mixtures, mixtures).mixing()
        assert soft.slot_entropy.item() == 0
        assert soft.token_share.item() == 1
        assert soft.slot_similarity.item() == pytest.approx(plan.mixing().slot_similarity[group].item())


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
