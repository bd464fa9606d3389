"""Transport plans: by hand, against the published solvers, and what every plan keeps."""

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from routerbench.moe.transport import (
    SparseTransport,
    marginal_residuals,
    sinkhorn_plan,
    sparse_plan,
    sparse_plan_by_token,
)

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("largest", [50.0, 1000.0])
@pytest.mark.parametrize("regularisation", [0.1, 1.0, 10.0])
def test_sinkhorn_is_stable_for_large_logits(
    dtype: torch.dtype, largest: float, regularisation: float
) -> None:
    logits = largest * (2 * torch.rand(2, 24, 4, dtype=dtype) - 1)
    # So much are logarithms of this size rounded, and so much of themselves their exponentials.
    rounding = 4 * torch.finfo(dtype).eps * largest / regularisation
    for num_iterations in (1, 20, 100):
        plan = sinkhorn_plan(logits, num_iterations, regularisation)
        assert (plan >= 0).all()
        assert_close(plan.sum(2), torch.ones_like(plan[:, :, 0]), atol=rounding, rtol=0)


@pytest.mark.parametrize("largest", [1.0, 5.0, 50.0])
def test_columns_of_a_sinkhorn_plan_come_nearer_with_every_iteration(largest: float) -> None:
    logits = largest * (2 * torch.rand(2, 24, 4, dtype=torch.float64) - 1)
    plans = [sinkhorn_plan(logits, num_iterations) for num_iterations in (1, 2, 5, 10, 20, 50)]
    # What an iteration lessens for certain is the sum of the deviations.
    residuals = torch.stack([(plan.sum(1) / 6 - 1).abs().sum(1) for plan in plans])
    assert (residuals.diff(dim=0) <= 1e-12).all()
    assert (residuals[-1] < 0.9 * residuals[0]).all()


def test_single_precision_sinkhorn_is_that_of_double_for_large_logits() -> None:
    logits = 50 * (2 * torch.rand(2, 24, 4) - 1)
    assert_close(sinkhorn_plan(logits, 50).double(), sinkhorn_plan(logits.double(), 50), atol=1e-4, rtol=0)


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


def newton(gates: torch.Tensor, capacity: int, **tolerance: float) -> torch.Tensor:
    return sparse_plan(gates, capacity, 200, solver="newton", **tolerance)


def newton_by_token(gates: torch.Tensor, top_k: int, **tolerance: float) -> torch.Tensor:
    return sparse_plan_by_token(gates, top_k, 200, solver="newton", **tolerance)


def objective(gates: torch.Tensor, plan: torch.Tensor) -> torch.Tensor:
    return (plan.square() / 2 - plan * gates).sum((1, 2))


def row_residual(plan: torch.Tensor) -> float:
    return (plan.sum(2) - 1).abs().max().item()


def column_residual(plan: torch.Tensor) -> float:
    return (plan.sum(1) * plan.shape[2] / plan.shape[1] - 1).abs().max().item()


def test_converged_plans_by_hand() -> None:
    # Capacity 1, two tokens: (0.9 + 0.4) is more than (0.6 + 0.1).
    gates = torch.tensor([[[0.9, 0.6], [0.1, 0.4]]])
    assert_close(newton(gates, 1), torch.eye(2)[None])
    # Capacity 2 is no limit. The plan is (p 1-p / 1-p p), with 0.8 p - p^2 - (1-p)^2 at its largest.
    gates = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]])
    expected = torch.tensor([[[0.7, 0.3], [0.3, 0.7]]])
    assert_close(newton(gates, 2, tolerance=1e-6), expected, atol=1e-5, rtol=0)
    assert_close(newton_by_token(gates, 2, tolerance=1e-6), expected, atol=1e-5, rtol=0)
    # Columns of 1.5 with two entries each: one token is shared, and token 2 costs the least.
    gates = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]])
    expected = torch.tensor([[[1, 0], [0, 1], [0.5, 0.5]]])
    assert_close(newton(gates, 2, tolerance=1e-6), expected, atol=1e-5, rtol=0)
    # Four tokens and two experts: all want expert 0, and tokens 1 and 3 the least.
    gates = torch.tensor([[[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3]]])
    expected = torch.tensor([[[1.0, 0], [0, 1], [1, 0], [0, 1]]])
    assert_close(newton(gates, 2), expected)
    assert_close(newton_by_token(gates, 1), expected)


@CASES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_converged_plan_without_spare_capacity_is_the_best_assignment(
    golden: "ReadGolden", name: str, dtype: torch.dtype
) -> None:
    case = golden(name, torch.float64)
    gates, capacity = case.output("softmax"), int(case.output("capacity"))
    token, slot = linear_sum_assignment(gates.repeat_interleave(capacity, dim=1).numpy(), maximize=True)
    expected = torch.zeros_like(gates)
    expected[token, slot // capacity] = 1
    plan = newton(gates[None].to(dtype), capacity)
    assert_close(plan[0].double(), expected, atol=1e-3, rtol=0)
    twin = newton_by_token(gates[None].to(dtype), 1)
    assert_close(twin[0].double(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("num_tokens", "num_experts"), [(16, 4), (49, 8), (197, 8), (197, 32)])
def test_newton_converges_where_there_is_room(num_tokens: int, num_experts: int, scale: float) -> None:
    gates = (scale * torch.randn(4, num_tokens, num_experts)).softmax(-1)
    capacity = 2 * num_tokens // num_experts
    plan = newton(gates, capacity)
    assert row_residual(plan) <= 1e-3
    assert column_residual(plan) < 1e-4
    assert (plan > 0).sum(1).max() <= capacity
    twin = newton_by_token(gates, 2)
    assert column_residual(twin) <= 1e-3
    assert row_residual(twin) < 1e-5
    assert (twin > 0).sum(2).max() <= 2


def test_double_precision_meets_a_tighter_tolerance() -> None:
    gates = torch.randn(3, 49, 8, dtype=torch.float64).softmax(-1)
    assert row_residual(newton(gates, 12, tolerance=1e-9)) <= 1e-9
    assert column_residual(newton_by_token(gates, 2, tolerance=1e-9)) <= 1e-9


def test_newton_agrees_with_long_adam_where_that_converges(golden: "ReadGolden") -> None:
    gates = golden("transport_a", torch.float64).output("softmax")[None]
    for capacity in (4, 16):  # between them, no potentials make the plan
        adam = sparse_plan(gates, capacity, 2000)
        assert row_residual(adam) < 2e-3
        plan = newton(gates, capacity, tolerance=1e-6)
        assert_close(plan, adam, atol=2e-3, rtol=0)
        assert_close(objective(gates, plan), objective(gates, adam), atol=1e-3, rtol=0)


def test_the_objective_is_better_the_more_entries_are_allowed() -> None:
    gates = torch.randn(3, 48, 6, dtype=torch.float64).softmax(-1)
    found = [objective(gates, newton(gates, capacity, tolerance=1e-6)) for capacity in (8, 12, 20, 48)]
    assert (torch.stack(found).diff(dim=0) < 0).all()


def test_newton_ends_where_no_plan_exists() -> None:
    gates = torch.randn(2, 16, 4).softmax(-1)
    plan = sparse_plan(gates, 2, 30, solver="newton")
    assert column_residual(plan) < 1e-5
    assert (plan > 0).sum(1).max() <= 2
    # Tokens that are all alike leave nothing to choose by.
    alike = sparse_plan(torch.full((1, 16, 4), 0.25), 4, 30, solver="newton")
    assert column_residual(alike) < 1e-5


def test_newton_plans_groups_alone_and_always_alike() -> None:
    gates = torch.randn(5, 49, 8).softmax(-1)
    for solve, most in ((newton, 8), (newton_by_token, 2)):
        plan = solve(gates, most)
        assert torch.equal(plan, solve(gates, most))
        for g in range(5):
            assert torch.equal(plan[g : g + 1], solve(gates[g : g + 1], most))
        gates_of_a_diverged_group = gates.clone()
        gates_of_a_diverged_group[1] = float("nan")
        plan_beside = solve(gates_of_a_diverged_group, most)
        assert plan_beside[1].isnan().any()
        assert torch.equal(plan_beside[[0, 2, 3, 4]], plan[[0, 2, 3, 4]])


def test_newton_runs_where_costs_are_counted_and_adds_none() -> None:
    gates = torch.randn(2, 16, 4, requires_grad=True).softmax(-1)
    with FlopCounterMode(display=False) as counter:
        assert not sparse_plan(gates, 5, 20, solver="newton").requires_grad
        assert sparse_plan_by_token(gates.to("meta"), 2, 20, solver="newton").shape == gates.shape
        with torch.inference_mode():
            sparse_plan(gates.to("meta"), 5, 20, solver="newton")
    assert counter.get_total_flops() == 0


def test_marginal_residuals_by_hand() -> None:
    # Group 0 has rows (1, 1, 1, 1), and columns (3, 1) in place of (2, 2).
    # Group 1 has rows (1.5, 0.5, 1, 1), and columns as they shall be.
    plan = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [0, 1]], [[1, 0.5], [0.5, 0], [0.5, 0.5], [0, 1]]])
    residuals = marginal_residuals(plan)
    assert residuals["row_residual"].item() == (0 + 0.5) / 2
    assert residuals["column_residual"].item() == (0.5 + 0) / 2
    assert list(residuals) == ["row_residual", "column_residual"]


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


@settings(max_examples=25)
@given(SIZES, st.integers(1, 5), st.integers(0, 9))
def test_unfinished_newton_plans_keep_what_sparse_plans_keep(
    sizes: tuple[int, int, int, int], most: int, num_iterations: int
) -> None:
    gates = logits_of(sizes).softmax(-1)
    _, num_tokens, num_experts = gates.shape
    columns = sparse_plan(gates, most, num_iterations, solver="newton")
    assert (columns >= 0).all()
    assert_close(columns.sum(1), torch.full_like(columns[:, 0], num_tokens / num_experts))
    assert (columns > 0).sum(1).max() <= most
    rows = sparse_plan_by_token(gates, most, num_iterations, solver="newton")
    assert (rows >= 0).all()
    assert_close(rows.sum(2), torch.ones_like(rows[:, :, 0]))
    assert (rows > 0).sum(2).max() <= most


def test_a_tolerance_of_all_is_none() -> None:
    with pytest.raises(ValueError, match=r"^tolerance=1\.0 must be a number below 1$"):
        SparseTransport("newton", None, None, 1.0)
    SparseTransport("newton", None, None, 0.5)
