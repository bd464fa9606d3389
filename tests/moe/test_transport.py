"""Transport plans: by hand, against the published solvers, and what every plan keeps."""

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from routerbench.moe.transport import sinkhorn_plan, sparse_plan, sparse_plan_by_token

if TYPE_CHECKING:
    from tests.conftest import ReadGolden

CASES = pytest.mark.parametrize("name", ["transport_a", "transport_b", "transport_c", "transport_d"])


@CASES
def test_plans_are_those_of_the_published_solvers(golden: "ReadGolden", name: str) -> None:
    case = golden(name, torch.float64)
    gates, capacity = case.output("softmax")[None], int(case.output("capacity"))
    case.check("softmax", case.input("logits").softmax(-1))
    case.check("sinkhorn_plan_20", sinkhorn_plan(case.input("logits")[None], 20)[0])
    case.check("sparse_plan_20", sparse_plan(gates, capacity, 20)[0])
    # JAXopt stops once the norm of the gradient is below 0.001: in one case, after 159 of the 200 steps.
    num_iterations = 159 if name == "transport_a" else 200
    case.check("sparse_plan_200", sparse_plan(gates, capacity, num_iterations)[0])
    case.check("sparse_row_plan_k2_20", sparse_plan_by_token(gates, 2, 20)[0])


@CASES
def test_single_precision_is_near_enough(golden: "ReadGolden", name: str) -> None:
    case = golden(name, torch.float64)
    logits, capacity = case.input("logits")[None].float(), int(case.output("capacity"))
    case.check("sinkhorn_plan_20", sinkhorn_plan(logits, 20)[0].double(), 2e-5)
    case.check("sparse_plan_20", sparse_plan(logits.softmax(-1), capacity, 20)[0].double(), 2e-5)
    case.check("sparse_row_plan_k2_20", sparse_plan_by_token(logits.softmax(-1), 2, 20)[0].double(), 2e-5)


def test_one_sinkhorn_iteration_by_hand() -> None:
    # Both columns of (2 1 / 2 3) sum to 4 and shall sum to S/E = 1: (1/2 1/4 / 1/2 3/4). The rows then sum to
    # 3/4 and 5/4 and shall sum to 1.
    logits = torch.tensor([[[2.0, 1.0], [2.0, 3.0]]]).log()
    expected = torch.tensor([[[2 / 3, 1 / 3], [2 / 5, 3 / 5]]])
    assert_close(sinkhorn_plan(logits, 1), expected)
    assert_close(sinkhorn_plan(2 * logits, 1, regularisation=2.0), expected)


def test_many_sinkhorn_iterations_by_hand() -> None:
    # With all marginals 1 the plan is (p 1-p / 1-p p), and scaling rows and columns keeps the cross ratio
    # 2 * 3 / (1 * 2) = (p / (1-p))^2.
    logits = torch.tensor([[[2.0, 1.0], [2.0, 3.0]]]).log()
    p = 3**0.5 / (1 + 3**0.5)
    assert_close(sinkhorn_plan(logits, 50), torch.tensor([[[p, 1 - p], [1 - p, p]]]))


def test_sinkhorn_stands_large_logits() -> None:
    logits = torch.tensor([[[1000.0, 0.0], [0.0, -1000.0]]])
    # The cross ratio is that of equal rows, so all four entries are a half.
    assert_close(sinkhorn_plan(logits, 20), torch.full((1, 2, 2), 0.5), atol=1e-4, rtol=0)


def test_sparse_plan_before_any_step_by_hand() -> None:
    # Capacity 1: each expert's whole sum, S/E = 1, goes to its largest gate, of equals to the first.
    gates = torch.tensor([[[0.9, 0.5], [0.1, 0.5]]])
    assert sparse_plan(gates, 1, 0).tolist() == [[[1, 1], [0, 0]]]
    # Capacity 2: columns (0.9, 0.1) and (0.5, 0.5) already stand on the simplex.
    assert_close(sparse_plan(gates, 2, 0), gates)
    # Three tokens and one expert: (0.8, 0.5, 0.2) over 3, plus 1/6 each, sum to 1; times 3.
    gates = torch.tensor([[[0.8], [0.5], [0.2]]])
    assert_close(sparse_plan(gates, 3, 0), torch.tensor([[[1.3], [1.0], [0.7]]]))


def test_one_step_of_the_sparse_plan_by_hand() -> None:
    # The first plan gives token 0 both columns, a row sum of 2, and token 1 none: the gradient is (1, -1).
    # Adam's first step goes against its sign, as far as the rate. Potentials (-0.3, 0.3) turn expert 1.
    gates = torch.tensor([[[0.9, 0.6], [0.1, 0.4]]])
    assert_close(sparse_plan(gates, 1, 1, learning_rate=0.3), torch.eye(2)[None])
    assert_close(sparse_plan(gates, 1, 1, learning_rate=0.05), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]))


def test_a_settled_sparse_plan_does_not_move() -> None:
    gates = torch.eye(2)[None]
    assert_close(sparse_plan(gates, 1, 20), gates)
    assert_close(sparse_plan_by_token(gates, 1, 20), gates)


def test_the_twin_by_hand() -> None:
    # Three tokens and one expert, before any step: each token's whole sum of 1 goes to the one expert.
    gates = torch.tensor([[[0.8], [0.5], [0.2]]])
    assert_close(sparse_plan_by_token(gates, 1, 0), torch.ones(1, 3, 1))
    # One choice for each token: its largest gate.
    gates = torch.tensor([[[0.6, 0.4], [0.3, 0.7], [0.5, 0.5]]])
    assert sparse_plan_by_token(gates, 1, 0).tolist() == [[[1, 0], [0, 1], [1, 0]]]


def test_plans_carry_no_gradient() -> None:
    logits = torch.randn(1, 6, 3, requires_grad=True)
    assert not sinkhorn_plan(logits, 3).requires_grad
    assert not sparse_plan(logits.softmax(-1), 2, 3).requires_grad
    assert not sparse_plan_by_token(logits.softmax(-1), 2, 3).requires_grad


def test_groups_are_planned_alone() -> None:
    logits = torch.randn(3, 8, 4)
    gates = logits.softmax(-1)
    for g in range(3):
        one = slice(g, g + 1)
        assert_close(sinkhorn_plan(logits, 20)[one], sinkhorn_plan(logits[one], 20))
        assert_close(sparse_plan(gates, 2, 20)[one], sparse_plan(gates[one], 2, 20))


def test_a_diverged_run_gets_a_plan_of_nan() -> None:
    gates = torch.full((1, 4, 2), float("nan"))
    assert sparse_plan(gates, 2, 3).isnan().any()
    assert sinkhorn_plan(gates, 3).isnan().all()


SIZES = st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))


def logits_of(sizes: tuple[int, int, int, int]) -> torch.Tensor:
    *shape, seed = sizes
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25)
@given(SIZES)
def test_sinkhorn_marginals(sizes: tuple[int, int, int, int]) -> None:
    logits = logits_of(sizes)
    _, num_tokens, num_experts = logits.shape
    plan = sinkhorn_plan(logits, 500)
    assert (plan > 0).all()
    assert_close(plan.sum(2), torch.ones_like(plan[:, :, 0]))
    assert_close(plan.sum(1), torch.full_like(plan[:, 0], num_tokens / num_experts), atol=1e-4, rtol=1e-4)
    # Rows are exact after any number of iterations.
    assert_close(sinkhorn_plan(logits, 1).sum(2), torch.ones_like(plan[:, :, 0]))


@given(SIZES, st.integers(1, 5), st.integers(0, 5))
def test_sparse_marginals(sizes: tuple[int, int, int, int], most: int, num_iterations: int) -> None:
    gates = logits_of(sizes).softmax(-1)
    _, num_tokens, num_experts = gates.shape
    columns = sparse_plan(gates, most, num_iterations)
    assert (columns >= 0).all()
    assert_close(columns.sum(1), torch.full_like(columns[:, 0], num_tokens / num_experts))
    assert (columns > 0).sum(1).max() <= most
    rows = sparse_plan_by_token(gates, most, num_iterations)
    assert (rows >= 0).all()
    assert_close(rows.sum(2), torch.ones_like(rows[:, :, 0]))
    assert (rows > 0).sum(2).max() <= most
