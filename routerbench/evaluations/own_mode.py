"""The mode in which a run is evaluated when nothing is changed, and modes as they differ from it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from routerbench.load import FinishedRun
from routerbench.modes import Mode, evaluated_in
from routerbench.moe.surgery import moe_layers


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


def whole(run: FinishedRun, mode: Mode) -> Mode:
    """The mode with all that the run has in it, changed or not."""
    kept = own_mode(run)
    if mode.capacity_factor is not None:
        kept = replace(kept, dropless=False)
    mode = replace(kept, **mode.changes)
    return replace(mode, capacity_factor=None) if mode.dropless else mode
