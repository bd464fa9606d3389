"""Compute by image: under batch priority, whose tokens win the slots that there are too few of."""

from collections.abc import Iterator
from functools import partial

from routerbench.evaluations.compute.files import write_files
from routerbench.evaluations.compute.numbers import relations
from routerbench.evaluations.measurement import Asked, Measurement, Result
from routerbench.evaluations.own_mode import checked, own_mode
from routerbench.evaluations.seeing.observed import observed_in
from routerbench.load import FinishedRun
from routerbench.modes import Mode, changeable

FACTOR = 0.5  # without another word
SEVERAL = 8  # images of a group, as in the studies


def measurements(run: FinishedRun, asked: Asked) -> Iterator[Measurement]:
    """One for each capacity factor below 1 and group; none where the routers cannot have such a capacity.

    Raises ValueError, before the first, for a mode that the run cannot have.
    """
    for mode in modes_of(run, asked):
        yield Measurement(mode.name, partial(_measure, run, mode))


def modes_of(run: FinishedRun, asked: Asked) -> list[Mode]:
    """With batch priority where the routers know it; in the run's groups and in groups of eight images."""
    known = changeable(run.model)
    if "capacity_factor" not in known:
        return []
    numbers = [factor for factor in asked.capacity_factors if not isinstance(factor, str)]
    factors = [factor for factor in numbers if factor < 1] if asked.capacity_factors else [FACTOR]
    groups = asked.groups or ((own_mode(run).group, SEVERAL) if "group" in known else (None,))
    queued = True if "batch_priority" in known else None
    return checked(
        run,
        [Mode(capacity_factor=c, batch_priority=queued, group=group) for c in factors for group in groups],
    )


def _measure(run: FinishedRun, mode: Mode) -> Result:
    seen, costs = observed_in(run, mode)
    flops = seen.flops(costs)
    write_files(run, mode, seen, flops)
    return relations(seen, flops)
