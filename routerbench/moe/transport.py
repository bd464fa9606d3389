"""Transport plans between the tokens of a group and its experts: rows sum to 1, columns to S/E.

A plan decides who is seated; no gradient passes through it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from routerbench.checks import check_count, check_one_of, check_positive

SOLVERS = ("adam",)


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


@dataclass(frozen=True)
class SparseTransport:
    """A sparsity-constrained plan by at most `num_iterations` steps of the `solver`.

    That is `adam` with a `learning_rate`, as published, or one that ends at a `tolerance` of the marginals.
    """

    solver: str
    num_iterations: int
    learning_rate: float
    tolerance: float

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range."""
        check_one_of("solver", self.solver, SOLVERS)
        check_count("num_iterations", self.num_iterations)
        check_positive("learning_rate", self.learning_rate)
        check_positive("tolerance", self.tolerance)

    def by_expert(self, gates: Float[Tensor, "G S E"], capacity: int) -> Float[Tensor, "G S E"]:
        """The plan with at most `capacity` tokens for each expert."""
        return sparse_plan(gates, capacity, self.num_iterations, self.learning_rate)

    def by_token(self, gates: Float[Tensor, "G S E"], top_k: int) -> Float[Tensor, "G S E"]:
        """The plan with at most `top_k` experts for each token."""
        return sparse_plan_by_token(gates, top_k, self.num_iterations, self.learning_rate)


def marginal_residuals(plan: Float[Tensor, "G S E"]) -> dict[str, Tensor]:
    """Largest |row sum - 1| and |column sum / (S/E) - 1| of each group, averaged over groups."""
    _, num_tokens, num_experts = plan.shape
    rows = (plan.sum(2) - 1).abs().amax(1)
    columns = (plan.sum(1) * (num_experts / num_tokens) - 1).abs().amax(1)
    return {"row_residual": rows.mean(), "column_residual": columns.mean()}


@torch.no_grad()
def sinkhorn_plan(
    logits: Float[Tensor, "G S E"], num_iterations: int, regularisation: float = 1.0
) -> Float[Tensor, "G S E"]:
    """Entropic optimal transport with cost `-logits` (Cuturi 2013; S-BASE, Clark et al. 2022).

    An iteration scales the columns, then the rows, so that rows are exact. It works on logarithms, which
    neither overflow nor vanish for large logits.
    """
    _, num_tokens, num_experts = logits.shape
    log_kernel = logits / regularisation
    log_share = math.log(num_tokens / num_experts)
    row = log_kernel.new_zeros(())
    column = log_kernel.new_zeros(())
    for _ in range(num_iterations):
        column = log_share - (log_kernel + row).logsumexp(1, keepdim=True)
        row = -(log_kernel + column).logsumexp(2, keepdim=True)
    return (log_kernel + row + column).exp()


def sparse_plan(
    gates: Float[Tensor, "G S E"], capacity: int, num_iterations: int, learning_rate: float = 0.01
) -> Float[Tensor, "G S E"]:
    """Sparsity-constrained transport: at most `capacity` tokens for each expert (Liu et al. 2023).

    Minimises `<T, -gates> + ||T||^2 / 2`. Columns are exact; rows are as good as the solver made them.
    """
    _, num_tokens, num_experts = gates.shape
    return _semi_dual_plan(gates, 1.0, num_tokens / num_experts, capacity, num_iterations, learning_rate)


def sparse_plan_by_token(
    gates: Float[Tensor, "G S E"], top_k: int, num_iterations: int, learning_rate: float = 0.01
) -> Float[Tensor, "G S E"]:
    """The Token Choice twin of `sparse_plan`: at most `top_k` experts for each token; rows are exact."""
    _, num_tokens, num_experts = gates.shape
    transposed = gates.transpose(1, 2)
    plan = _semi_dual_plan(transposed, num_tokens / num_experts, 1.0, top_k, num_iterations, learning_rate)
    return plan.transpose(1, 2)


@torch.no_grad()
def _semi_dual_plan(
    gates: Float[Tensor, "G N M"],
    row_sum: float,
    column_sum: float,
    num_nonzero: int,
    num_iterations: int,
    learning_rate: float,
) -> Float[Tensor, "G N M"]:
    """Plan with at most `num_nonzero` entries in each column, by Adam on the semi-dual's row potentials."""
    # The gradient of the semi-dual is made by hand: row sums minus marginal.
    potential = torch.nn.Parameter(gates.new_zeros(gates.shape[:2]))
    optimizer = torch.optim.Adam([potential], lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(num_iterations):
        plan = _best_columns(gates + potential[..., None], column_sum, num_nonzero)
        potential.grad = plan.sum(2) - row_sum
        optimizer.step()
    return _best_columns(gates + potential[..., None], column_sum, num_nonzero)


def _best_columns(
    scores: Float[Tensor, "G N M"], column_sum: float, num_nonzero: int
) -> Float[Tensor, "G N M"]:
    """Project the `num_nonzero` largest of each column, over `column_sum`, on the simplex, and scale back."""
    # The row sums are a subgradient, and of equal entries the earlier is kept: hence the stable sort.
    ordered, index = (scores / column_sum).sort(dim=1, descending=True, stable=True)
    ordered, index = ordered[:, :num_nonzero], index[:, :num_nonzero]
    rank = torch.arange(1, ordered.shape[1] + 1, device=scores.device, dtype=scores.dtype)[:, None]
    excess = (ordered.cumsum(1) - 1) / rank
    # At least one entry is above its excess, unless all are NaN: a diverged run must end as such, not here.
    support = (ordered > excess).sum(1, keepdim=True).clamp(min=1)
    share = (ordered - excess.gather(1, support - 1)).clamp(min=0)
    return torch.zeros_like(scores).scatter(1, index, share) * column_sum
