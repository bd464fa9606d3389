"""Weighted setups: what a claim says of them, as one difference for each cell and seed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from routerbench.report.claims.setups import Setup
from routerbench.report.runs.run import Run


@dataclass(frozen=True)
class Contrast:
    """Setups with weights: their weighted scores, added up seed by seed, are the differences."""

    terms: Sequence[tuple[float, Setup]]

    @property
    def seeds(self) -> frozenset[int]:
        """The seeds that all its setups have."""
        return frozenset.intersection(*(frozenset(setup.runs) for _, setup in self.terms))

    def scaled(self, factor: float) -> "Contrast":
        """The same with all weights times a factor."""
        return Contrast([(factor * weight, setup) for weight, setup in self.terms])

    def differences(self) -> list[float]:
        """One for each seed that all its setups have, in the order of the seeds."""
        return [
            sum(weight * setup.score(seed) for weight, setup in self.terms) for seed in sorted(self.seeds)
        ]

    def runs(self) -> list[Run]:
        """The runs behind the differences, each once."""
        setups = {setup.key: setup for _, setup in self.terms}.values()
        return [setup.runs[seed] for setup in setups for seed in sorted(self.seeds)]


def minus(high: Setup, low: Setup) -> Contrast:
    """One setup against another."""
    return Contrast([(1.0, high), (-1.0, low)])


def added(contrasts: Iterable[Contrast]) -> Contrast:
    """The sum of contrasts."""
    return Contrast([term for contrast in contrasts for term in contrast.terms])


def mean_of(contrasts: Sequence[Contrast]) -> Contrast:
    """The mean of contrasts."""
    return added(contrasts).scaled(1 / len(contrasts))


def pairs(
    groups: Iterable[Sequence[Setup]],
    high: Callable[[Setup], bool],
    low: Callable[[Setup], bool],
    fair: Callable[[Setup, Setup], bool] = lambda high, low: True,
) -> list[Contrast]:
    """Every wanted setup against every other wanted one of its group, where the two may be compared."""
    found = []
    for group in groups:
        ends = [(one, other) for one in group if high(one) for other in group if low(other)]
        found += [minus(one, other) for one, other in ends if fair(one, other)]
    return found


def cells_of(contrasts: Iterable[Contrast]) -> list[Contrast]:
    """The means of those contrasts that share setups, so that no two cells have a run in common.

    In a cell all have the same seeds, as else its mean would change with the seed for what is in it: of the
    sets of seeds that its contrasts have, that which keeps most differences beyond the first of each.
    """
    cells: dict[str, list[Contrast]] = {}  # by the key of each setup in it
    for contrast in (one for one in contrasts if one.seeds):
        keys = [setup.key for _, setup in contrast.terms]
        joined = {id(cells[key]): cells[key] for key in keys if key in cells}
        cell = [*(one for part in joined.values() for one in part), contrast]
        cells |= {setup.key: cell for one in cell for _, setup in one.terms}
    distinct = {id(cell): cell for cell in cells.values()}
    return [mean_of(_of_common_seeds(cell)) for cell in distinct.values()]


def _of_common_seeds(cell: Sequence[Contrast]) -> list[Contrast]:
    kept = {seeds: [one for one in cell if seeds <= one.seeds] for seeds in {one.seeds for one in cell}}
    best = max(kept, key=lambda seeds: ((len(seeds) - 1) * len(kept[seeds]), len(seeds), sorted(seeds)))
    return kept[best]
