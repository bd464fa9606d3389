"""A configuration's scores over the scales of its model, along one measure of cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routerbench.report.across.configurations import plainest
from routerbench.report.across.families import Configuration, Family
from routerbench.report.across.measures import Measure, Point, scores_of, seeds_of
from routerbench.report.boards.cells import DENSE
from routerbench.stats import scores_at

TOKEN_CHOICE = "token_choice"  # by softmax, the usual sparse router


@dataclass(frozen=True, eq=False)
class Curve:
    """A configuration along one measure of cost: costs (scales), rising, and scores (scales, seeds)."""

    configuration: Configuration
    points: Sequence[Point]
    costs: np.ndarray
    scores: np.ndarray
    seeds: Sequence[int]

    @property
    def name(self) -> str:
        return self.configuration.name

    @property
    def joined(self) -> bool:
        """Whether two scales at least have a seed in common, none of them at the same cost."""
        enough = (~np.isnan(self.scores)).sum(axis=0) >= 2
        return bool(enough.any()) and self.one_cost_a_scale

    @property
    def one_cost_a_scale(self) -> bool:
        return bool((np.diff(self.costs) > 0).all())

    def at(self, cost: float) -> dict[int, float]:
        """The scores by seed at a cost that the curve reaches."""
        if not self.one_cost_a_scale:
            return {}
        scores = scores_at(cost, self.costs, self.scores)
        return {seed: float(score) for seed, score in zip(self.seeds, scores, strict=True) if score == score}

    @property
    def unfinished(self) -> bool:
        return any(point.row.unfinished for point in self.points)

    @property
    def mixed(self) -> bool:
        """Whether its runs differ in commit, device or versions."""
        origins = [point.origins for point in self.points]
        names = sorted({name for one in origins for name in one})
        return any(len({value for one in origins for value in one.get(name, [])}) > 1 for name in names)


def curves_of(family: Family, measure: Measure) -> list[Curve]:
    """The curves of the configurations that have a score at a known cost."""
    points = [(one, measure.points(one)) for one in family.configurations]
    return [_curve(configuration, own) for configuration, own in points if own]


def reference_of(curves: Sequence[Curve], by: Sequence[str]) -> Curve | None:
    """The dense twin; where there is none plain Token Choice."""
    for router in (DENSE, TOKEN_CHOICE):
        own = {curve.configuration.key: curve for curve in curves if curve.configuration.router == router}
        if own:
            return own[plainest(own, by)]
    return None


def _curve(configuration: Configuration, points: Sequence[Point]) -> Curve:
    seeds = seeds_of(points)
    costs = np.array([float(point.cost) for point in points])
    return Curve(configuration, points, costs, scores_of(points, seeds), seeds)
