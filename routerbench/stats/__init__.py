"""Intervals and tests, on numpy and scipy alone; the unit of replication is the training seed."""

from routerbench.stats.bootstrap import (
    Interval,
    drawn_seeds,
    expanded,
    freedom_of,
    freedom_of_sum,
    interquartile_mean,
    percentile_interval,
    probability_of_improvement,
)
from routerbench.stats.contrasts import Effect, effect_over_cells, holm_levels
from routerbench.stats.crossed import crossed_interval
from routerbench.stats.curves import scores_at
from routerbench.stats.frontier import frontier_shares, on_frontier
from routerbench.stats.intervals import (
    CONFIDENCE,
    Estimate,
    paired_difference,
    proportion_interval,
    t_interval,
)
from routerbench.stats.many_cells import (
    average_ranks,
    critical_difference,
    friedman_p,
    groups_within,
    place_interval,
    places,
    rank_correlation,
)
from routerbench.stats.null import noise_of, relabelled, share_interval
from routerbench.stats.paired import deviations, equivalence_p, holm, paired_p, smallest_detectable
from routerbench.stats.planning import MOST_SEEDS, Spread, paired_spread, seeds_needed
from routerbench.stats.rank_sets import open_places

__all__ = [
    "CONFIDENCE",
    "MOST_SEEDS",
    "Effect",
    "Estimate",
    "Interval",
    "Spread",
    "average_ranks",
    "critical_difference",
    "crossed_interval",
    "deviations",
    "drawn_seeds",
    "effect_over_cells",
    "equivalence_p",
    "expanded",
    "freedom_of",
    "freedom_of_sum",
    "friedman_p",
    "frontier_shares",
    "groups_within",
    "holm",
    "holm_levels",
    "interquartile_mean",
    "noise_of",
    "on_frontier",
    "open_places",
    "paired_difference",
    "paired_p",
    "paired_spread",
    "percentile_interval",
    "place_interval",
    "places",
    "probability_of_improvement",
    "proportion_interval",
    "rank_correlation",
    "relabelled",
    "scores_at",
    "seeds_needed",
    "share_interval",
    "smallest_detectable",
    "t_interval",
]
