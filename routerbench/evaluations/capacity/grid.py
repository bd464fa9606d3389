"""The modes of a capacity sweep: which there are, and which is the reference."""

from itertools import product

from routerbench.evaluations.measurement import Asked
from routerbench.evaluations.own_mode import checked, differing, own_mode
from routerbench.load import FinishedRun
from routerbench.modes import Mode, changeable

STUDY = "capacity"
DROPLESS = "dropless"
FACTORS: tuple[float | str, ...] = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, DROPLESS)
TOP_KS = (1, 2)


def modes_of(run: FinishedRun, asked: Asked) -> list[Mode]:
    """The reference, the run's own mode, and what is asked for, else all that its routers can have."""
    known, own = changeable(run.model), own_mode(run)
    factors = asked.capacity_factors or (FACTORS if "capacity_factor" in known else (None,))
    few = (k for k in TOP_KS if k <= (run.config.num_experts or 0))
    top_ks = asked.top_ks or ((own.top_k, *few) if "top_k" in known else (None,))
    priorities = asked.priorities or ((False, True) if "batch_priority" in known else (None,))
    groups = [None if group == own.group else group for group in asked.groups] or [None]
    wanted = (_mode(*choice) for choice in product(factors, top_ks, priorities, groups))
    return checked(run, [reference_of(run), Mode(), *wanted])


def reference_of(run: FinishedRun) -> Mode:
    """The run without dropped tokens; its own mode where its routers drop none or cannot be told not to."""
    return differing(run, Mode(dropless=True)) if "dropless" in changeable(run.model) else Mode()


def _mode(
    factor: float | str | None, top_k: int | None, priority: bool | None, group: str | int | None
) -> Mode:
    if factor == DROPLESS:  # where all are seated, neither their order nor their batch-mates change anything
        return Mode(dropless=True, top_k=top_k)
    assert not isinstance(factor, str)
    return Mode(capacity_factor=factor, top_k=top_k, batch_priority=priority, group=group)
