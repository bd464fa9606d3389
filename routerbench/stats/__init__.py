"""Intervals and tests, on numpy and scipy alone; the unit of replication is the training seed."""

from routerbench.stats.contrasts import Effect, effect_over_cells, holm_levels
from routerbench.stats.intervals import Estimate, paired_difference, t_interval

__all__ = ["Effect", "Estimate", "effect_over_cells", "holm_levels", "paired_difference", "t_interval"]
