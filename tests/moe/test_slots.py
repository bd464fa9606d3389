"""Capacity and seating: by hand, against plain loops, and against the published table."""

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from routerbench.moe.slots import Capacity, fill_slots, seat_by_expert, seat_by_token

if TYPE_CHECKING:
    from tests.conftest import ReadGolden


def by_token(gates: list[list[float]], **settings: Any):
    """The plan of one group that is seated by its gates."""
    scores = torch.tensor([gates])
    return seat_by_token(
        scores, scores, **{"top_k": 1, "batch_priority": False, "normalize_combine": False, **settings}
    )


def test_who_comes_last_is_dropped() -> None:
    # Tokens 0 and 1 both want expert 0, which has one slot; token 0 comes first.
    plan = by_token([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], capacity=1)
    assert plan.token.tolist() == [[[0], [2]]]
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.6], [0.8]]]))
    assert plan.demand.tolist() == [[2, 1]]
    assert plan.load.tolist() == [[1, 1]]
    assert plan.served.tolist() == [[1, 0, 1]]


def test_batch_priority_lets_the_surest_first() -> None:
    # The same three tokens: token 1 wants expert 0 more, so token 0 is dropped.
    plan = by_token([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], capacity=1, batch_priority=True)
    assert plan.token.tolist() == [[[1], [2]]]
    assert plan.served.tolist() == [[0, 1, 1]]


def test_batch_priority_is_of_the_largest_score_for_every_choice() -> None:
    # Largest scores 0.6, 0.5, 0.9: the order is 2, 0, 1 for first and for second choices, although token 1
    # wants its second choice more than token 0 does. Expert 1: token 2's second choice, then 0's, then 1's.
    plan = by_token(
        [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.9, 0.06, 0.04]], top_k=2, capacity=3, batch_priority=True
    )
    assert plan.token.tolist() == [[[2, 0, 1], [2, 0, 1], [0, 0, 0]]]
    assert plan.filled.tolist() == [[[True] * 3, [True] * 3, [False] * 3]]


def test_equally_sure_tokens_keep_their_order() -> None:
    plan = by_token([[0.2, 0.8], [0.7, 0.3], [0.8, 0.2], [0.8, 0.2]], capacity=2, batch_priority=True)
    assert plan.token.tolist() == [[[2, 3], [0, 0]]]
    assert plan.filled.tolist() == [[[True, True], [True, False]]]


def test_first_choices_come_before_second_choices() -> None:
    # Expert 0 is the first choice of token 0 and the second of 1 and 2; expert 1 the first of 1 and 2 and the
    # second of 0. With two slots expert 0 holds 0 and 1, expert 1 holds 1 and 2: token 0, although it comes
    # first, loses its second choice to the first choice of token 2.
    plan = by_token([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]], top_k=2, capacity=2)
    assert plan.token.tolist() == [[[0, 1], [1, 2]]]
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.7, 0.4], [0.6, 0.9]]]))
    assert plan.demand.tolist() == [[3, 3]]
    assert plan.served.tolist() == [[1, 2, 1]]


def test_equal_gates_choose_the_lower_expert() -> None:
    plan = by_token([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], capacity=2)
    assert plan.token.tolist() == [[[0, 1], [0, 0]]]
    assert plan.filled.tolist() == [[[True, True], [False, False]]]
    assert plan.weight.tolist() == [[[0.5, 0.5], [0, 0]]]


def test_scores_choose_and_gates_weigh() -> None:
    # The scores send token 0 to expert 1 and give token 1 the precedence; the weights are the gates'.
    scores = torch.tensor([[[0.1, 0.4], [0.2, 0.8]]])
    gates = torch.tensor([[[0.9, 0.1], [0.7, 0.3]]])
    plan = seat_by_token(scores, gates, top_k=1, capacity=2, batch_priority=True, normalize_combine=False)
    assert plan.token.tolist() == [[[0, 0], [1, 0]]]
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.0, 0.0], [0.3, 0.1]]]))


def test_groups_are_seated_alone() -> None:
    gates = torch.tensor([[[0.9, 0.1], [0.8, 0.2]], [[0.3, 0.7], [0.4, 0.6]]])
    plan = seat_by_token(gates, gates, top_k=1, capacity=1, batch_priority=False, normalize_combine=False)
    assert plan.filled.tolist() == [[[True], [False]], [[False], [True]]]
    assert plan.token.tolist() == [[[0], [0]], [[0], [0]]]
    assert plan.demand.tolist() == [[2, 0], [0, 2]]


def test_experts_take_their_best_tokens_and_of_equals_the_first() -> None:
    # Expert 0 has 0.7 twice and takes tokens 1 and 2 in this order; expert 1 takes 0, and of the equal 1 and
    # 2 the first. Token 2 is held once, token 1 twice. Token 0 leans to none: the lower expert counts.
    gates = torch.tensor([[[0.5, 0.5], [0.7, 0.3], [0.7, 0.3]]])
    plan = seat_by_expert(gates, gates, capacity=2, normalize_combine=False)
    assert plan.token.tolist() == [[[1, 2], [0, 1]]]
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.7, 0.7], [0.5, 0.3]]]))
    assert plan.filled.all()
    assert plan.served.tolist() == [[1, 2, 1]]
    assert plan.demand.tolist() == [[3, 0]]
    assert plan.load.tolist() == [[2, 2]]


def test_experts_take_by_scores_and_weigh_by_gates() -> None:
    # Both tokens lean to expert 1 by their gates, which is the demand; by the scores each
    # expert takes its own.
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])
    gates = torch.tensor([[[0.4, 0.6], [0.3, 0.7]]])
    plan = seat_by_expert(scores, gates, capacity=1, normalize_combine=False)
    assert plan.token.tolist() == [[[0], [1]]]
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.4], [0.7]]]))
    assert plan.demand.tolist() == [[0, 2]]


def test_a_token_that_no_expert_takes_is_dropped() -> None:
    gates = torch.tensor([[[0.6, 0.4], [0.9, 0.1], [0.1, 0.9]]])
    assert seat_by_expert(gates, gates, capacity=1, normalize_combine=False).served.tolist() == [[0, 1, 1]]


def test_weights_carry_the_gradient_of_the_gates_alone() -> None:
    scores = torch.tensor([[[0.6, 0.4], [0.9, 0.1]]], requires_grad=True)
    gates = torch.tensor([[[0.6, 0.4], [0.9, 0.1]]], requires_grad=True)
    plan = seat_by_token(scores, gates, top_k=1, capacity=1, batch_priority=False, normalize_combine=False)
    plan.weight.sum().backward()
    assert scores.grad is None
    assert gates.grad is not None
    assert gates.grad.tolist() == [[[1, 0], [0, 0]]]


def test_normalised_weights_are_over_all_choices_of_a_token() -> None:
    # With one slot each, token 1 loses both its choices, and token 0 has 0.6 and 0.2 of 0.8. With two slots
    # token 1 has 0.5 and 0.3 of 0.8.
    plan = by_token([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2]], top_k=2, capacity=1, normalize_combine=True)
    assert plan.token.tolist() == [[[0], [0], [0]]]
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.75], [0.25], [0.0]]]))
    plan = by_token([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2]], top_k=2, capacity=2, normalize_combine=True)
    torch.testing.assert_close(plan.weight, torch.tensor([[[0.75, 0.625], [0.25, 0.375], [0.0, 0.0]]]))


def test_normalised_weights_are_over_the_experts_that_take_a_token() -> None:
    # Expert 0 takes token 0 alone, experts 1 and 2 take token 1, which has 0.3 and 0.2 there.
    gates = torch.tensor([[[0.6, 0.2, 0.1], [0.5, 0.3, 0.2]]])
    plan = seat_by_expert(gates, gates, capacity=1, normalize_combine=True)
    assert plan.token.tolist() == [[[0], [1], [1]]]
    torch.testing.assert_close(plan.weight, torch.tensor([[[1.0], [0.6], [0.4]]]))


@pytest.mark.parametrize("logit", [30.0, 43.6, 60.0, 1000.0])
def test_normalised_weights_of_vanishing_gates(logit: float) -> None:
    # Expert 1 takes token 1, of which softmax gives it nearly nothing or, in single precision, nothing.
    logits = torch.tensor([[[2 * logit, -2 * logit], [logit, -logit]]], requires_grad=True)
    gates = logits.softmax(-1)
    plan = seat_by_expert(logits, gates, capacity=1, normalize_combine=True)
    assert plan.token.tolist() == [[[0], [1]]]
    assert plan.weight.tolist() == [[[1], [1]]]
    plan = seat_by_token(-logits, gates, top_k=1, capacity=2, batch_priority=False, normalize_combine=True)
    assert plan.weight.tolist() == [[[0, 0], [1, 1]]]
    (100 * plan.weight).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_choices_may_come_from_elsewhere() -> None:
    # Both tokens ask for expert 2, token 1 first.
    plan = fill_slots(
        torch.tensor([[[2], [2]]]), torch.tensor([[1, 0]]), torch.full((1, 2, 3), 1 / 3), capacity=2
    )
    assert plan.token.tolist() == [[[0, 0], [0, 0], [1, 0]]]
    assert plan.load.tolist() == [[0, 0, 2]]


# Coarse scores, so that many are equal.
SCORES = st.integers(1, 5).flatmap(
    lambda num_experts: st.lists(
        st.lists(st.integers(0, 4), min_size=num_experts, max_size=num_experts), min_size=1, max_size=8
    )
)


def seats_by_loops(
    scores: list[list[int]], top_k: int, capacity: int, batch_priority: bool
) -> list[list[int]]:
    """The tokens of each expert in the order of its slots, as the papers tell it."""
    choices = [sorted(range(len(row)), key=lambda e, row=row: (-row[e], e))[:top_k] for row in scores]
    order = sorted(range(len(scores)), key=lambda s: (-max(scores[s]), s) if batch_priority else s)
    seats: list[list[int]] = [[] for _ in scores[0]]
    for rank in range(top_k):
        for token in order:
            if len(seats[choices[token][rank]]) < capacity:
                seats[choices[token][rank]].append(token)
    return seats


def seats_of(token: Tensor, filled: Tensor) -> list[list[int]]:
    assert not token[~filled].any()
    return [row[mask].tolist() for row, mask in zip(token[0], filled[0], strict=True)]


@given(SCORES, st.data())
def test_seating_by_token_is_that_of_plain_loops(scores: list[list[int]], data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, len(scores[0])))
    capacity = data.draw(st.integers(1, len(scores)))
    batch_priority = data.draw(st.booleans())
    values = torch.tensor([scores], dtype=torch.float32)
    plan = seat_by_token(
        values, values, top_k=top_k, capacity=capacity, batch_priority=batch_priority, normalize_combine=False
    )
    assert seats_of(plan.token, plan.filled) == seats_by_loops(scores, top_k, capacity, batch_priority)
    assert plan.demand.sum() == len(scores) * top_k
    # Without drops load is demand; with them it ends at the capacity.
    assert torch.equal(plan.load, plan.demand.clamp(max=capacity))


@given(SCORES, st.data())
def test_seating_by_expert_is_that_of_plain_loops(scores: list[list[int]], data: st.DataObject) -> None:
    capacity = data.draw(st.integers(1, len(scores)))
    values = torch.tensor([scores], dtype=torch.float32)
    plan = seat_by_expert(values, values, capacity=capacity, normalize_combine=False)
    columns = list(zip(*scores, strict=True))
    expected = [sorted(range(len(c)), key=lambda s, c=c: (-c[s], s))[:capacity] for c in columns]
    assert plan.token.tolist() == [expected]


def test_capacity_by_hand() -> None:
    # 10 tokens of which each asks once, over 4 experts: 2.5 each.
    assert Capacity(1.0, None, "ceil", 1).slots(10, 4, 10) == 3
    assert Capacity(1.0, None, "round", 1).slots(10, 4, 10) == 2  # half to even
    assert Capacity(1.4, None, "round", 1).slots(10, 4, 10) == 4  # 3.5, half to even
    assert Capacity(2.0, None, "ceil", 1).slots(10, 4, 10) == 5
    assert Capacity(1.0, None, "ceil", 4).slots(10, 4, 10) == 4
    assert Capacity(0.01, None, "round", 1).slots(10, 4, 10) == 1
    assert Capacity(9.0, None, "ceil", 4).slots(10, 4, 10) == 10  # not 24: there are 10 tokens
    assert Capacity(1.0, 7, "ceil", 1).slots(10, 4, 10) == 7
    assert Capacity(1.0, 7, "ceil", 4).slots(10, 4, 5) == 5


def test_capacity_is_that_of_the_published_code(golden: "ReadGolden") -> None:
    table = golden("capacity_table", torch.float64).arrays["table"].tolist()
    assert len(table) == 10710
    for num_asks, num_experts, factor, rounding, multiple_of, expected in table:
        multiple = max(1, int(multiple_of))
        capacity = Capacity(factor, None, "round" if rounding else "ceil", multiple)
        # Where the published code refuses a capacity of 0, an expert here has one slot, or one multiple.
        expected = multiple if expected == -1 else expected
        row = (num_asks, num_experts, factor, rounding, multiple_of)
        assert capacity.slots(int(num_asks), int(num_experts), num_tokens=10**9) == expected, row


@given(
    st.integers(1, 64),
    st.integers(1, 16),
    st.integers(1, 4),
    st.floats(0.01, 8),
    st.sampled_from(["ceil", "round"]),
    st.integers(1, 8),
)
def test_capacity_holds_what_it_promises(
    num_tokens: int, num_experts: int, top_k: int, factor: float, rounding: str, multiple_of: int
) -> None:
    slots = Capacity(factor, None, rounding, multiple_of).slots(num_tokens * top_k, num_experts, num_tokens)
    assert 1 <= slots <= num_tokens
    assert slots == num_tokens or slots % multiple_of == 0
    more = Capacity(2 * factor, None, rounding, multiple_of).slots(
        num_tokens * top_k, num_experts, num_tokens
    )
    assert more >= slots
    if rounding == "ceil" and slots < num_tokens:
        assert slots * num_experts >= num_tokens * top_k * factor * (1 - 1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.0, None, "ceil", 1), "capacity_factor=0.0 must be a number above 0"),
        ((float("nan"), None, "ceil", 1), "capacity_factor=nan must be a number above 0"),
        ((float("inf"), None, "ceil", 1), "capacity_factor=inf must be a number above 0"),
        ((1.0, 0, "ceil", 1), "capacity=0 must be a whole number of at least 1"),
        ((1.0, None, "floor", 1), "capacity_rounding=floor is not one of: ceil, round"),
        ((1.0, None, "cell", 1), "capacity_rounding=cell is not one of: ceil, round (did you mean ceil?)"),
        ((1.0, None, "ceil", 0), "capacity_multiple_of=0 must be a whole number of at least 1"),
    ],
)
def test_capacities_that_make_no_sense(settings: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Capacity(*settings)
