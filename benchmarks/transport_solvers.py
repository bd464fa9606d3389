"""How near the sparsity-constrained plan comes to its marginals, and in what time, by solver.

    python benchmarks/transport_solvers.py [LOGIT_SCALE]

Gates are softmax of Gaussian logits with that standard deviation (default 1), in float32, on one thread; a
residual is that of the rows, largest within a group. Takes about a minute on one core.
"""

import math
import sys
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table

from routerbench.moe.sparse_solvers import plan_exists
from routerbench.moe.transport import sparse_plan

GROUPS = 8
TOLERANCE = 1e-3
SIZES = ((16, 4), (49, 8), (197, 8), (197, 32))
CAPACITY_FACTORS = (0.5, 1.0, 1.05, 2.0)
RUNS = (("adam", 20), ("adam", 200), ("adam", 2000), ("newton", 500))
COLUMNS = ("tokens", "experts", "factor", "capacity", "a plan exists", "solver", "iterations")
COLUMNS += ("median residual", "worst", f"within {TOLERANCE}", "time / adam 20")


def run(gates: torch.Tensor, capacity: int, solver: str, num_iterations: int) -> tuple[torch.Tensor, float]:
    """The residual of each group, and the seconds for all."""
    start = perf_counter()
    plan = sparse_plan(gates, capacity, num_iterations, solver=solver, tolerance=TOLERANCE)
    return (plan.sum(2) - 1).abs().amax(1), perf_counter() - start


def main(logit_scale: float) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = Table(*COLUMNS, title=f"logit scale {logit_scale}")
    for num_tokens, num_experts in SIZES:
        torch.manual_seed(0)
        gates = (logit_scale * torch.randn(GROUPS, num_tokens, num_experts)).softmax(-1)
        run(gates, 1, "adam", 2)  # warm up
        for factor in CAPACITY_FACTORS:
            capacity = math.ceil(num_tokens * factor / num_experts)
            exists = "yes" if plan_exists(num_tokens, num_experts, capacity) else "no"
            size = (num_tokens, num_experts, factor, capacity, exists)
            unit = 0.0
            for solver, num_iterations in RUNS:
                residual, seconds = run(gates, capacity, solver, num_iterations)
                unit = unit or seconds
                within = f"{(residual <= TOLERANCE).sum()} of {GROUPS}"
                found = (f"{residual.median():.0e}", f"{residual.max():.0e}", within, f"{seconds / unit:.1f}")
                table.add_row(*map(str, (*size, solver, num_iterations)), *found)
        table.add_section()
    Console(width=140).print(table)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2] or ["1"]))
