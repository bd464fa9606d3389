"""One effect over several cells: the cells are fixed, the seeds in each are the replication."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from routerbench.stats.intervals import Estimate

NO_SPREAD = 1e-12  # of accuracies: what rounding leaves of differences that are all the same


@dataclass(frozen=True)
class Effect:
    """The mean over cells of their means over seeds, in the unit of the differences.

    `num_cells` and `n` count the cells and the differences that it is taken over. standard_error and
    degrees_of_freedom are nan where no cell has two seeds or no two differences are unlike: then nothing says
    how far another draw of seeds would move the effect, and both p are 1.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float
    num_cells: int
    n: int

    @property
    def testable(self) -> bool:
        return not math.isnan(self.standard_error)

    def interval(self, confidence: float) -> Estimate:
        """The two-sided Student t interval, which over several cells covers more than it says."""
        assert 0 < confidence < 1, confidence
        half = self.standard_error * float(special.stdtrit(self.degrees_of_freedom, (1 + confidence) / 2))
        return Estimate(self.mean, self.mean - half, self.mean + half, self.n)

    def p_above(self, bound: float) -> float:
        """One-sided p of the hypothesis that the effect is at most `bound`."""
        return self._upper_tail((self.mean - bound) / self.standard_error)

    def p_below(self, bound: float) -> float:
        """One-sided p of the hypothesis that the effect is at least `bound`."""
        return self._upper_tail((bound - self.mean) / self.standard_error)

    def _upper_tail(self, t: float) -> float:
        return float(special.stdtr(self.degrees_of_freedom, -t)) if self.testable else 1.0


def effect_over_cells(differences: Sequence[Sequence[float]]) -> Effect:
    """The effect behind the differences of each cell, one a seed; the cells must have no run in common.

    With d the mean and v the squared standard error of the mean of each of K cells, the effect is the mean of
    the d and its squared standard error the sum of the v over K^2. For one cell that is the paired t-test.
    Cells of one seed say nothing of the spread: they count only where no cell has more.

    Its degrees of freedom are n - 1 of the cell with the fewest seeds. With these every level holds however
    unlike the spreads of the cells are (Hajek 1962): the tail of t is convex in the estimated variance, and
    no cell's estimate is wilder than that of the fewest seeds. The price: of nominal 95 % intervals 95 to
    99.95 % hold the effect, most where many cells have one spread. Satterthwaite's (1946), up to K times as
    many, do not hold small levels: at 0.38 % and three seeds 0.7 % of true hypotheses fall with two cells of
    spread 5:1, and 1.8 % with nine of which one has ten times the spread (simulated).
    """
    cells = [cell for cell in differences if len(cell) > 1] or [cell for cell in differences if cell]
    n = sum(map(len, cells))
    if not cells:
        return Effect(math.nan, math.nan, math.nan, 0, 0)
    mean = float(np.mean([np.mean(cell) for cell in cells]))
    if n == len(cells) or all(np.ptp(cell) < NO_SPREAD for cell in cells):
        return Effect(mean, math.nan, math.nan, len(cells), n)
    variances = np.array([np.var(cell, ddof=1) / len(cell) for cell in cells])
    freedom = float(min(map(len, cells)) - 1)
    return Effect(mean, math.sqrt(variances.sum()) / len(cells), freedom, len(cells), n)


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level that each p must not exceed for its hypothesis to fall, by Holm's procedure (1979).

    The smallest of m p-values is held against alpha / m, the next against alpha / (m - 1), and so on; from
    the first that is too large on, all are held against the level of that one.
    """
    m = len(p_values)
    order = sorted(range(m), key=p_values.__getitem__)
    standing = [step for step, place in enumerate(order) if p_values[place] > alpha / (m - step)]
    last = min(standing, default=m)
    steps = {place: min(step, last) for step, place in enumerate(order)}
    return [alpha / (m - steps[place]) for place in range(m)]
