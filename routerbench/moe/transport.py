"""Transport plans between the tokens of a group and its experts: rows sum to 1, columns to S/E.

A plan decides who is seated; no gradient passes through it.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count, check_one_of, check_positive
from routerbench.moe.scorer import experts_first
from routerbench.moe.sparse_solvers import adam_columns, newton_columns

# What each solver of sparsity-constrained plans needs, and has where it is not said.
SOLVERS: dict[str, dict[str, int | float]] = {
    "adam": {"num_iterations": 20, "learning_rate": 0.01},
    "newton": {"num_iterations": 500, "tolerance": 1e-3},
}


@dataclass(frozen=True)
class Sinkhorn:
    """A balanced plan by `num_iterations` Sinkhorn iterations with the entropic `regularisation`."""

    num_iterations: int
    regularisation: float

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range."""
        check_count("num_iterations", self.num_iterations)
        check_positive("regularisation", self.regularisation)

    def plan(self, logits: Float[Tensor, "G S E"]) -> Float[Tensor, "G S E"]:
        """The plan with cost `-logits`."""
        return sinkhorn_plan(logits, self.num_iterations, self.regularisation)


class SparseTransport:
    """A sparsity-constrained plan, by one of the solvers of `sparse_plan`.

    Raises ValueError for a setting that is out of its range, or means nothing to the solver.
    """

    def __init__(
        self,
        solver: str,
        num_iterations: int | None,
        learning_rate: float | None,
        tolerance: float | None,
    ) -> None:
        check_one_of("solver", solver, tuple(SOLVERS))
        given = {"num_iterations": num_iterations, "learning_rate": learning_rate, "tolerance": tolerance}
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if name not in SOLVERS[solver]:
                raise ValueError(f"{name}={value} means nothing to solver={solver}: leave it out")
            check = check_count if name == "num_iterations" else check_positive
            check(name, value)
        if tolerance is not None and tolerance >= 1:
            raise ValueError(f"tolerance={tolerance} must be a number below 1")
        self.settings: dict[str, Any] = {"solver": solver, **SOLVERS[solver], **given}

    def by_expert(self, gates: Float[Tensor, "G S E"], capacity: int) -> Float[Tensor, "G S E"]:
        """The plan with at most `capacity` tokens for each expert."""
        return sparse_plan(gates, capacity, **self.settings)

    def by_token(self, gates: Float[Tensor, "G S E"], top_k: int) -> Float[Tensor, "G S E"]:
        """The plan with at most `top_k` experts for each token."""
        return sparse_plan_by_token(gates, top_k, **self.settings)


@torch.no_grad()
def sinkhorn_plan(
    logits: Float[Tensor, "G S E"], num_iterations: int, regularisation: float = 1.0
) -> Float[Tensor, "G S E"]:
    """Entropic optimal transport with cost `-logits` (Cuturi 2013; S-BASE, Clark et al. 2022).

    An iteration scales the columns, then the rows, so that rows are exact. It works on logarithms, which
    neither overflow nor vanish for large logits.
    """
    _, num_tokens, num_experts = logits.shape
    log_kernel = experts_first(logits / regularisation)
    log_share = math.log(num_tokens / num_experts)
    row = log_kernel.new_zeros(())
    column = log_kernel.new_zeros(())
    for _ in range(num_iterations):
        column = log_share - (log_kernel + row).logsumexp(2, keepdim=True)
        row = -(log_kernel + column).logsumexp(0, keepdim=True)
    return (log_kernel + row + column).exp().permute(1, 2, 0)


def sparse_plan(
    gates: Float[Tensor, "G S E"],
    capacity: int,
    num_iterations: int,
    learning_rate: float = 0.01,
    *,
    solver: str = "adam",
    tolerance: float = 1e-3,
) -> Float[Tensor, "G S E"]:
    """Sparsity-constrained transport: at most `capacity` tokens for each expert (Liu et al. 2023).

    Minimises `<T, -gates> + ||T||^2 / 2`. Columns are exact; rows are as good as the solver made them. "adam"
    takes `num_iterations` steps with `learning_rate`, as published. "newton" stops once all rows are within
    `tolerance` of their sum, and after `num_iterations` in each of its two parts at the latest; earlier where
    no plan exists: there is one if and only if `capacity >= S/E + 1 - gcd(S, E)/E`.
    """
    _, num_tokens, num_experts = gates.shape
    share = num_tokens / num_experts
    return _sparse_columns(gates, 1.0, share, capacity, num_iterations, learning_rate, solver, tolerance)


def sparse_plan_by_token(
    gates: Float[Tensor, "G S E"],
    top_k: int,
    num_iterations: int,
    learning_rate: float = 0.01,
    *,
    solver: str = "adam",
    tolerance: float = 1e-3,
) -> Float[Tensor, "G S E"]:
    """The Token Choice twin of `sparse_plan`: at most `top_k` experts for each token; rows are exact.

    "newton" brings the columns within `tolerance` of S/E, relative to it.
    """
    _, num_tokens, num_experts = gates.shape
    share = num_tokens / num_experts
    transposed = gates.transpose(1, 2)
    plan = _sparse_columns(transposed, share, 1.0, top_k, num_iterations, learning_rate, solver, tolerance)
    return plan.transpose(1, 2)


@torch.no_grad()
def marginal_residuals(plan: Float[Tensor, "G S E"]) -> dict[str, Float[Tensor, ""]]:
    """How far a plan is from its marginals: the largest deviation within a group, averaged over the groups.

    `row_residual` is that of `|row sum - 1|`, `column_residual` that of `|column sum / (S/E) - 1|`.
    """
    _, num_tokens, num_experts = plan.shape
    rows = (plan.sum(2) - 1).abs().amax(1)
    columns = (plan.sum(1) * num_experts / num_tokens - 1).abs().amax(1)
    return {"row_residual": rows.mean(), "column_residual": columns.mean()}


def _sparse_columns(
    gates: Float[Tensor, "G N M"],
    row_sum: float,
    column_sum: float,
    num_nonzero: int,
    num_iterations: int,
    learning_rate: float,
    solver: str,
    tolerance: float,
) -> Float[Tensor, "G N M"]:
    """Plan with at most `num_nonzero` entries in each column, by the solver of that name."""
    assert solver in SOLVERS, solver
    if solver == "newton":
        return newton_columns(gates, row_sum, column_sum, num_nonzero, num_iterations, tolerance)
    return adam_columns(gates, row_sum, column_sum, num_nonzero, num_iterations, learning_rate)
