"""Intervals and tests, on numpy and scipy alone; the unit of replication is the training seed."""

from routerbench.stats.bootstrap import (
    Interval,
    drawn_seeds,
    expanded,
    freedom_of,
    interquartile_mean,
    percentile_interval,
    probability_of_improvement,
)
from routerbench.stats.curves import scores_at
from routerbench.stats.frontier import frontier_shares, on_frontier
from routerbench.stats.intervals import Estimate, paired_difference, t_interval
from routerbench.stats.many_cells import (
    average_ranks,
    critical_difference,
    friedman_p,
    groups_within,
    place_interval,
    places,
    rank_correlation,
)

__all__ = [
    "Estimate",
    "Interval",
    "average_ranks",
    "critical_difference",
    "drawn_seeds",
    "expanded",
    "freedom_of",
    "friedman_p",
    "frontier_shares",
    "groups_within",
    "interquartile_mean",
    "on_frontier",
    "paired_difference",
    "percentile_interval",
    "place_interval",
    "places",
    "probability_of_improvement",
    "rank_correlation",
    "scores_at",
    "t_interval",
]
