"""Solvers of sparsity-constrained transport: plans of N rows and M columns with few non-zeros in each column.

Columns have their sum exactly; rows have it as well as the solver makes them.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from routerbench.moe.ranking import largest

# Single precision knows the entries of a plan as little regularised as this to four digits.
LEAST_REGULARISATION = 2.0**-10
# Of Adam, as published.
BETAS = (0.9, 0.999)
EPSILON = 1e-8
# Where rows cannot have their sum, further iterations bring them no nearer to it.
MOST_ITERATIONS_WITHOUT_A_PLAN = 50


def plan_exists(num_rows: int, num_columns: int, num_nonzero: int) -> bool:
    """Whether all rows and columns can have their sums, with so many non-zeros in each column.

    k columns that share rows with one another, and with no others, fill a whole number of rows, by at least
    k - 1 entries more than rows.
    """
    return num_columns * num_nonzero >= num_rows + num_columns - math.gcd(num_rows, num_columns)


@torch.no_grad()
def adam_columns(
    gates: Float[Tensor, "G N M"],
    row_sum: float,
    column_sum: float,
    num_nonzero: int,
    num_iterations: int,
    learning_rate: float,
) -> Float[Tensor, "G N M"]:
    """Adam on the semi-dual's row potentials, whose gradient is what row sums have too much."""
    # By hand, since an optimizer is made for parameters, and not to be compiled with a model.
    potential, mean, square = (gates.new_zeros(gates.shape[:2]) for _ in range(3))
    for step in range(1, num_iterations + 1):
        plan = _best_columns(gates + potential[..., None], column_sum, num_nonzero)
        gradient = plan.sum(2) - row_sum
        mean = mean.lerp(gradient, 1 - BETAS[0])
        square = square.lerp(gradient.square(), 1 - BETAS[1])
        deviation = (square / (1 - BETAS[1] ** step)).sqrt() + EPSILON
        potential = potential - learning_rate / (1 - BETAS[0] ** step) * mean / deviation
    return _best_columns(gates + potential[..., None], column_sum, num_nonzero)


@torch.no_grad()
def newton_columns(
    gates: Float[Tensor, "G N M"],
    row_sum: float,
    column_sum: float,
    num_nonzero: int,
    num_iterations: int,
    tolerance: float,
) -> Float[Tensor, "G N M"]:
    """Newton's method on two problems without a limit: one finds the places of the non-zeros, one fills them.

    At the minimum of the semi-dual, entries tie for the last places of a column, and no choice among them may
    give the rows their sum: its potentials alone do not make a plan. But a plan without a limit has the fewer
    non-zeros the less it is regularised, so the places are those of one that keeps the limit unasked.
    """
    if not plan_exists(gates.shape[1], gates.shape[2], num_nonzero):
        num_iterations = min(num_iterations, MOST_ITERATIONS_WITHOUT_A_PLAN)
    potential = gates.new_zeros(gates.shape[:2])
    limits = (row_sum, column_sum, num_nonzero, num_iterations, tolerance)
    gates, potential = _newton(gates, potential, *limits)
    order = (gates + potential[..., None]).argsort(dim=1, descending=True, stable=True)
    gates = gates.scatter(1, order[:, num_nonzero:], -math.inf)
    gates, potential = _newton(gates, potential, *limits)
    return _best_columns(gates + potential[..., None], column_sum, num_nonzero)


def _newton(
    gates: Float[Tensor, "G N M"],
    potential: Float[Tensor, "G N"],
    row_sum: float,
    column_sum: float,
    most: int,
    num_iterations: int,
    tolerance: float,
) -> tuple[Float[Tensor, "G N M"], Float[Tensor, "G N"]]:
    """Potentials that give each row its sum, and columns at most `most` non-zeros, by damped Newton steps.

    The regularisation of a group starts at 1, and is halved whenever its rows are within `tolerance` but a
    column is crowded, having more non-zeros. In the end such columns lose their smallest entries instead, one
    at a time: the gates that come back are -inf there. Groups do not see one another: one that has arrived
    stands still.
    """
    num_rows = gates.shape[1]
    least_damping = torch.finfo(gates.dtype).eps ** 0.5
    regularisation = torch.ones_like(potential[:, :1])
    damping = torch.full_like(regularisation, 0.01)
    plan = _best_columns(gates + potential[..., None], column_sum, num_rows)
    for iteration in range(num_iterations):
        excess = plan.sum(2) - row_sum
        settled = excess.abs().amax(1, keepdim=True) < tolerance * row_sum
        crowded = (plan > 0).sum(1, keepdim=True) > most
        # The question makes the host wait for the device, hence not in every iteration.
        if iteration % 8 == 0 and not plan.is_meta and (settled & ~crowded.any(2)).all():
            break
        final = regularisation <= LEAST_REGULARISATION
        gates = _without_least(gates, plan, crowded & (settled & final)[..., None])
        halved = settled & ~final & crowded.any(2)
        regularisation = torch.where(halved, regularisation / 2, regularisation)
        step = regularisation * _newton_step((plan > 0).to(plan.dtype), excess, damping)
        step = torch.where(settled, 0, step)
        scores = (gates + (potential - step)[..., None]) / regularisation[..., None]
        new_plan = _best_columns(scores, column_sum, num_rows)
        # The semi-dual is convex: where its slope along the step has turned but little, it has fallen.
        slope, new_slope = (excess * step).sum(1), ((new_plan.sum(2) - row_sum) * step).sum(1)
        accepted = (new_slope >= -slope / 2)[:, None]
        potential = torch.where(accepted, potential - step, potential)
        plan = torch.where(accepted[..., None], new_plan, plan)
        damping = torch.where(accepted, damping / 10, damping * 10).clamp(min=least_damping)
    return gates, potential


def _without_least(
    gates: Float[Tensor, "G N M"], plan: Float[Tensor, "G N M"], columns: Bool[Tensor, "G 1 M"]
) -> Float[Tensor, "G N M"]:
    """Bar the smallest non-zero entry of these columns from the plan."""
    least = torch.where(plan > 0, plan, math.inf).argmin(1, keepdim=True)
    return gates.scatter(1, least, torch.where(columns, -math.inf, gates.gather(1, least)))


def _newton_step(
    support: Float[Tensor, "G N M"], excess: Float[Tensor, "G N"], damping: Float[Tensor, "G 1"]
) -> Float[Tensor, "G N"]:
    """Solve with the generalised Hessian `diag(row counts) - support diag(1 / column counts) support^T`."""
    rows = support.sum(2).clamp(min=1) * (1 + damping)
    columns = support.sum(1).clamp(min=1)
    if support.shape[1] <= support.shape[2]:
        return _solve(torch.diag_embed(rows) - _products((support / columns[:, None]).mT, support.mT), excess)
    # By Woodbury's identity, M equations in place of N.
    inner = torch.diag_embed(columns) - _products(support / rows[..., None], support)
    shift = _solve(inner, (support * (excess / rows)[..., None]).sum(1))
    return (excess + (support * shift[:, None]).sum(2)) / rows


def _products(left: Float[Tensor, "G N M"], right: Float[Tensor, "G N M"]) -> Float[Tensor, "G M M"]:
    """`right^T left` by sums, as a matrix product would be counted among the model's."""
    return torch.stack([(left * column[..., None]).sum(1) for column in right.unbind(2)], dim=1)


def _solve(matrix: Float[Tensor, "G K K"], right: Float[Tensor, "G K"]) -> Float[Tensor, "G K"]:
    factor, _ = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve(right[..., None], factor)[..., 0]


def _best_columns(
    scores: Float[Tensor, "G N M"], column_sum: float, num_nonzero: int
) -> Float[Tensor, "G N M"]:
    """Project the `num_nonzero` largest of each column, over `column_sum`, on the simplex, and scale back."""
    scores = scores / column_sum
    # The row sums are a subgradient, and of equal entries the earlier is kept.
    index = largest(scores, min(num_nonzero, scores.shape[1]), dim=1)
    ordered = scores.gather(1, index)
    rank = torch.arange(1, ordered.shape[1] + 1, device=scores.device, dtype=scores.dtype)[:, None]
    excess = (ordered.cumsum(1) - 1) / rank
    # At least one entry is above its excess, unless all are NaN: a diverged run must end as such, not here.
    support = (ordered > excess).sum(1, keepdim=True).clamp(min=1)
    share = (ordered - excess.gather(1, support - 1)).clamp(min=0)
    return torch.zeros_like(scores).scatter(1, index, share) * column_sum
