"""What a claim is: words of a study, and the contrasts in which it would show."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from routerbench.report.claims.contrasts import Contrast, cells_of
from routerbench.report.claims.setups import Setup
from routerbench.report.published import PublishedDifference
from routerbench.report.runs.run import Run


@dataclass(frozen=True)
class Part:
    """One of the comparisons that a claim stands or falls with, positive where it speaks for the claim.

    `differences`: by cell one for each seed, as fractions; empty where nothing in the results speaks to it.
    `runs`: by cell those behind them. `unfinished`: whether others of what it compares failed or diverged.
    """

    name: str
    differences: Sequence[Sequence[float]]
    runs: Sequence[Sequence[Run]]
    unfinished: bool = False


@dataclass(frozen=True)
class PublishedPart:
    """What the tables say of a part."""

    name: str
    differences: Sequence[PublishedDifference]


@dataclass(frozen=True)
class Claim:
    """A claim of a study; every part of it must hold.

    `at_least_as_good`: the claim is that no part is below minus delta, and not that every part is above 0.
    `sweep`: the file of `sweeps/` that would test it. `parts`: from the setups of
    a results folder.
    """

    name: str
    text: str
    source: str
    sweep: str
    parts: Callable[[Sequence[Setup]], Sequence[Part]]
    published: Callable[[], Sequence[PublishedPart]]
    at_least_as_good: bool = False


def part_of(name: str, contrasts: Iterable[Contrast]) -> Part:
    """The contrasts as one part, those that share setups in one cell."""
    compared = list(contrasts)
    cells = cells_of(compared)
    # Of all that is compared: what failed may be why a contrast has no seed, or none that its cell kept.
    unfinished = any(setup.unfinished for contrast in compared for _, setup in contrast.terms)
    return Part(name, [cell.differences() for cell in cells], [cell.runs() for cell in cells], unfinished)


def nothing_published() -> Sequence[PublishedPart]:
    """For claims whose numbers stand in figures, or in no table that is here."""
    return ()
