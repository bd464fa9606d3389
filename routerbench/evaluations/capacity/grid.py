"""The modes of a capacity sweep: which there are, what they are called, and what the run itself is."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any

from routerbench.evaluations.measurement import Asked
from routerbench.load import FinishedRun
from routerbench.modes import Mode, changeable, evaluated_in
from routerbench.moe.surgery import moe_layers

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


def own_mode(run: FinishedRun) -> Mode:
    """What the run is evaluated in when nothing is changed; None for what its routers do not have."""
    layer = next(iter(moe_layers(run.model).values()), None)
    if layer is None:
        return Mode()
    router: Any = layer.router
    capacity = getattr(router, "capacity", None)
    factor = None
    if capacity is not None and not capacity.dropless:
        of_training = capacity.factor if capacity.fixed is None else None
        factor = of_training if capacity.eval_factor is None else capacity.eval_factor
    return Mode(
        capacity_factor=factor,
        dropless=None if capacity is None else capacity.dropless,
        top_k=getattr(router, "top_k_eval", None),
        batch_priority=getattr(router, "batch_priority", None),
        group="image" if layer.images_per_group == 1 else layer.images_per_group,
    )


def differing(run: FinishedRun, mode: Mode) -> Mode:
    """The mode without what the run has anyway, so that one mode has one name."""
    own = own_mode(run)
    return Mode(**{name: value for name, value in mode.changes.items() if value != getattr(own, name)})


def checked(run: FinishedRun, modes: Iterable[Mode]) -> list[Mode]:
    """Each mode once, by what it changes; raises ValueError for one that the run cannot have."""
    for mode in (modes := list(modes)):
        with evaluated_in(run.model, mode):
            pass
    return list(dict.fromkeys(differing(run, mode) for mode in modes))


def _mode(
    factor: float | str | None, top_k: int | None, priority: bool | None, group: str | int | None
) -> Mode:
    if factor == DROPLESS:  # where all are seated, neither their order nor their batch-mates change anything
        return Mode(dropless=True, top_k=top_k)
    assert not isinstance(factor, str)
    return Mode(capacity_factor=factor, top_k=top_k, batch_priority=priority, group=group)


def whole(run: FinishedRun, mode: Mode) -> Mode:
    """The mode with all that the run has in it, changed or not."""
    kept = own_mode(run)
    if mode.capacity_factor is not None:
        kept = replace(kept, dropless=False)
    mode = replace(kept, **mode.changes)
    return replace(mode, capacity_factor=None) if mode.dropless else mode
