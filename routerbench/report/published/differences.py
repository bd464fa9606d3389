"""What a published table says of one method against another: differences of rows that are otherwise alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from routerbench.report.published.tables import SoftMoeRun, soft_moe_runs

TABLE = "Puigcerver et al. 2024, table 9"
SAME_COMPUTE = 0.05  # training FLOPs that differ by at most this share count as equal
METRICS = ("ImageNet 10-shot", "JFT precision@1")


@dataclass(frozen=True)
class PublishedDifference:
    """Mean, smallest and largest of the `count` differences of a table, as fractions, of one accuracy."""

    metric: str
    mean: float
    low: float
    high: float
    count: int
    source: str


@cache
def published_difference(router: str, reference: str) -> tuple[PublishedDifference, ...]:
    """A router minus a reference in Soft MoE's table 9: soft, expert_choice, token_choice or dense.

    One for each accuracy of the table, none where it has no such pair. Against dense, rows of one backbone
    are paired; others must have experts, group size, slots per token (where the table lets one tell) and
    training FLOPs (within 5 %) in common too. Each row is one run: the range is that of the pairs.
    """
    rows, others = _runs_of(router), _runs_of(reference)
    pairs = [(row, other) for row in rows for other in others if _alike(row, other)]
    return tuple(
        difference
        for metric in METRICS
        for difference in summary(
            metric, [score(metric, row) - score(metric, other) for row, other in pairs], TABLE
        )
    )


def soft_minus_sparse() -> list[PublishedDifference]:
    """Soft minus the mean of the sparse rows that are alike in backbone, experts, group size and FLOPs."""
    sparse = [*_runs_of("expert_choice"), *_runs_of("token_choice")]
    twins = [(row, [other for other in sparse if _alike(row, other)]) for row in _runs_of("soft")]
    found = []
    for metric in METRICS:
        values = [score(metric, row) - _mean(metric, others) for row, others in twins if others]
        found += summary(metric, values, TABLE)
    return found


def summary(metric: str, differences: Sequence[float], source: str) -> list[PublishedDifference]:
    """The differences of one accuracy as one; none of none."""
    if not differences:
        return []
    mean = math.fsum(differences) / len(differences)
    return [PublishedDifference(metric, mean, min(differences), max(differences), len(differences), source)]


def score(metric: str, row: SoftMoeRun) -> float:
    """One of the two accuracies of the table."""
    return row.imagenet_10shot if metric == METRICS[0] else row.jft_precision_at_1


def _mean(metric: str, rows: Sequence[SoftMoeRun]) -> float:
    return math.fsum(score(metric, row) for row in rows) / len(rows)


def _runs_of(router: str) -> list[SoftMoeRun]:
    return [row for row in soft_moe_runs() if row.router == router]


def _alike(a: SoftMoeRun, b: SoftMoeRun) -> bool:
    if "dense" in (a.router, b.router):
        return a.backbone == b.backbone
    slots = {number for row in (a, b) if (number := _slots_per_token(row)) is not None}
    close = abs(a.train_exaflop - b.train_exaflop) <= SAME_COMPUTE * max(a.train_exaflop, b.train_exaflop)
    return _setup(a) == _setup(b) and len(slots) <= 1 and close


def _setup(row: SoftMoeRun) -> tuple[str, int | None, int | None]:
    return row.backbone, row.num_experts, row.group_size_tokens


def _slots_per_token(row: SoftMoeRun) -> float | None:
    """The capacity factor, for each of a token's choices; the table has none for soft."""
    return None if row.capacity_factor is None else row.capacity_factor * (row.k or 1)
