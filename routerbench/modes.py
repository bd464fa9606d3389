"""Modes: a trained model evaluated otherwise than it was trained."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch import nn

from routerbench.checks import check_count, check_flag
from routerbench.moe.layer import check_group
from routerbench.moe.router import Router
from routerbench.moe.surgery import moe_layers

OF_LAYERS = frozenset({"group"})  # what a layer can change whatever its router is


@dataclass(frozen=True)
class Mode:
    """How a trained model is evaluated; what is None stays as it was in training."""

    capacity_factor: float | None = None
    dropless: bool | None = None
    """True: slots for every token, so that none is dropped."""
    top_k: int | None = None
    batch_priority: bool | None = None
    group: str | int | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that it changes."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def name(self) -> str:
        """As its settings would be typed, `trained` where it changes nothing."""
        return " ".join(f"{key}={str(value).lower()}" for key, value in self.changes.items()) or "trained"


SETTING = rf"(?:{'|'.join(field.name for field in fields(Mode))})=[\w.+-]+"
NAME = re.compile(rf"trained|{SETTING}(?: {SETTING})*", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a mode may be called so; a path to elsewhere is no such name."""
    return NAME.fullmatch(text) is not None


def changeable(model: nn.Module) -> frozenset[str]:
    """The settings of a `Mode` that all MoE layers of this model can change; of a dense model none."""
    layers = moe_layers(model).values()
    if not layers:
        return frozenset()
    of_routers = frozenset.intersection(*(layer.router.changeable for layer in layers))
    group = OF_LAYERS if all(layer.router.spans_images for layer in layers) else frozenset()
    return of_routers | group


@contextmanager
def evaluated_in(model: nn.Module, mode: Mode) -> Iterator[nn.Module]:
    """Inside, the model's MoE layers are in this mode; afterwards they are as before.

    Raises ValueError, which names the setting, for one that a router of the model has not or that is out of
    range.
    """
    _check(model, mode)
    before = []
    try:
        for layer in moe_layers(model).values():
            for module, name, value in _settings(layer.router, mode):
                before.append((module, name, getattr(module, name)))
                setattr(module, name, value)
            if mode.group is not None:
                before.append((layer, "images_per_group", layer.images_per_group))
                layer.images_per_group = 1 if mode.group == "image" else int(mode.group)
        yield model
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)


def _check(model: nn.Module, mode: Mode) -> None:
    known = changeable(model)
    for name, value in mode.changes.items():
        if name not in known:
            routers = {type(layer.router).__name__ for layer in moe_layers(model).values()}
            of = " and ".join(sorted(routers)) or "dense run"
            have = f"only {', '.join(sorted(known))} can be" if known else "nothing of it can be"
            raise ValueError(f"{name}={str(value).lower()} cannot be changed in a trained {of}: {have}")
    if mode.group is not None:
        check_group(mode.group)
    for flag in ("dropless", "batch_priority"):
        if flag in mode.changes:
            check_flag(flag, mode.changes[flag])
    if mode.top_k is not None:
        for layer in moe_layers(model).values():
            check_count("top_k", mode.top_k, layer.experts.num_experts, "num_experts")


def _settings(router: Router, mode: Mode) -> Iterator[tuple[Any, str, Any]]:
    described: Any = router
    if mode.dropless:
        yield router, "capacity", replace(described.capacity, dropless=True, eval_factor=None)
    elif mode.capacity_factor is not None or mode.dropless is False:
        factor = described.capacity.eval_factor if mode.capacity_factor is None else mode.capacity_factor
        yield router, "capacity", replace(described.capacity, dropless=False, eval_factor=factor)
    if mode.top_k is not None:
        yield router, "top_k_eval", mode.top_k
    if mode.batch_priority is not None:
        yield router, "batch_priority", mode.batch_priority
