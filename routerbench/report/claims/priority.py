"""Claims on Batch Priority Routing."""

import math
from collections.abc import Sequence

from routerbench.report.claims.claim import Claim, PublishedPart, part_of
from routerbench.report.claims.contrasts import Contrast, added, pairs
from routerbench.report.claims.setups import Setup, matched, of
from routerbench.report.published.differences import METRICS, summary
from routerbench.report.published.tables import PriorityRun, priority_runs

SOURCE = (
    "Riquelme et al. 2021, Scaling Vision with Sparse Mixture of Experts; Puigcerver et al. 2024, table 7"
)
TABLE = "Puigcerver et al. 2024, table 7"
LOW = 1.0  # the largest capacity factor at which there is need to choose who is served
PRIORITY = "router.batch_priority"


def claims() -> list[Claim]:
    """That priority helps at k = 1, and there more than at k = 2."""
    return [
        Claim(
            "batch priority at k = 1",
            "With k = 1 and a capacity factor of at most 1, Token Choice is better with Batch Priority.",
            SOURCE,
            "capacity",
            lambda setups: [part_of("on - off at k = 1", _on_minus_off(setups, 1))],
            lambda: _published("on - off at k = 1", {1: 1}),
        ),
        Claim(
            "batch priority, k = 1 over 2",
            "At a capacity factor of at most 1, Batch Priority gives more with k = 1 than with k = 2.",
            TABLE,
            "capacity",
            lambda setups: [part_of("on - off, k = 1 minus k = 2", _one_over_two(setups))],
            lambda: _published("on - off, k = 1 minus k = 2", {1: 1, 2: -1}),
        ),
    ]


def _crowded(setups: Sequence[Setup]) -> list[Setup]:
    """Token Choice with few slots; a capacity as a number has no factor to judge by."""
    return of(
        setups,
        lambda setup: (
            setup.router == "token_choice" and setup.get("router.capacity") is None and _factor(setup) <= LOW
        ),
    )


def _factor(setup: Setup) -> float:
    """The capacity factor, infinite where the setup does not tell it as a number."""
    factor = setup.get("router.capacity_factor") or setup.get("capacity_factor")
    return float(factor) if isinstance(factor, int | float) else math.inf


def _on_minus_off(setups: Sequence[Setup], k: int) -> list[Contrast]:
    groups = matched(of(_crowded(setups), lambda setup: setup.get("router.top_k") == k), [PRIORITY])
    return pairs(groups, _with_priority, lambda setup: not _with_priority(setup))


def _one_over_two(setups: Sequence[Setup]) -> list[Contrast]:
    found = []
    for group in matched(_crowded(setups), [PRIORITY, "router.top_k"]):
        one, two = (_on_minus_off(group, k) for k in (1, 2))
        found += [added([first, second.scaled(-1.0)]) for first in one for second in two]
    return found


def _with_priority(setup: Setup) -> bool:
    return setup.get(PRIORITY) is True


def _published(name: str, weights: dict[int, int]) -> list[PublishedPart]:
    """On minus off for each number of experts, the numbers of choices k weighted."""
    experts = sorted({row.num_experts for row in priority_runs()})
    found = []
    for metric in METRICS:
        values = [_gain(metric, number, weights) for number in experts]
        found += summary(metric, values, TABLE)
    return [PublishedPart(name, found)]


def _gain(metric: str, num_experts: int, weights: dict[int, int]) -> float:
    rows = [row for row in priority_runs() if row.num_experts == num_experts and row.k in weights]
    return sum((1 if row.batch_priority else -1) * weights[row.k] * _score(metric, row) for row in rows)


def _score(metric: str, row: PriorityRun) -> float:
    return row.imagenet_10shot if metric == METRICS[0] else row.jft_precision_at_1
