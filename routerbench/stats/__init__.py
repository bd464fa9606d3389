"""Intervals and tests, on numpy and scipy alone; the unit of replication is the training seed."""

from routerbench.stats.crossed import crossed_interval
from routerbench.stats.intervals import Estimate, paired_difference, t_interval
from routerbench.stats.null import noise_of, relabelled, share_interval
from routerbench.stats.paired import deviations, equivalence_p, holm, paired_p, smallest_detectable
from routerbench.stats.rank_sets import open_places

__all__ = [
    "Estimate",
    "crossed_interval",
    "deviations",
    "equivalence_p",
    "holm",
    "noise_of",
    "open_places",
    "paired_difference",
    "paired_p",
    "relabelled",
    "share_interval",
    "smallest_detectable",
    "t_interval",
]
