"""Intervals and tests, on numpy and scipy alone; the unit of replication is the training seed."""

from routerbench.stats.intervals import Estimate, paired_difference, t_interval

__all__ = ["Estimate", "paired_difference", "t_interval"]
