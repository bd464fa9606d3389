"""Optimizer and learning-rate schedule, by timm."""

import inspect
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.distributed.tensor import DTensor

from routerbench.checks import check_one_of, did_you_mean

SCHEDULES = ("cosine", "tanh", "poly")  # timm's others need settings that are not here
# timm knows biases and norms by their one axis; those of stacked experts have more.
_STACKED = ("*.experts.b[12g]", "*.experts.hidden_norm.*")
_EXPERT_MATRICES = "*.experts.w[12g]"


def make_optimizer(
    model: nn.Module, *, name: str, lr: float, weight_decay: float, expert_weight_decay: float | None = None
) -> torch.optim.Optimizer:
    """timm's optimizer `name`; norms, biases, positions and class token do not decay.

    The matrices of experts decay as the others unless `expert_weight_decay` is given.
    Raises ValueError for an unknown name.
    """
    known = [str(optimizer) for optimizer in list_optimizers()]
    if name not in known:
        raise ValueError(f"optim.name={name} is not a timm optimizer{did_you_mean(name, known)}")
    described: Any = model
    spared = set(described.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    groups = partial(
        _param_groups,
        weight_decay=weight_decay,
        expert_weight_decay=expert_weight_decay,
        spared=(*sorted(spared), *_STACKED),
    )
    one_kernel: Any = {"fused": True} if _has_one_kernel(model, name) else {}
    return create_optimizer_v2(
        model, opt=name, lr=lr, weight_decay=weight_decay, param_group_fn=groups, **one_kernel
    )


def _has_one_kernel(model: nn.Module, name: str) -> bool:
    """Whether this optimizer is one of torch's own that can take a step on these parameters in one kernel."""
    optimizer = get_optimizer_info(name).opt_class
    device = next(model.parameters()).device.type
    takes_it = isinstance(optimizer, type) and "fused" in inspect.signature(optimizer).parameters
    kinds = {isinstance(parameter, DTensor) for parameter in model.parameters()}
    return takes_it and device in ("cpu", "cuda") and len(kinds) == 1


def _param_groups(
    model: nn.Module, weight_decay: float, expert_weight_decay: float | None, spared: tuple[str, ...]
) -> list[dict[str, Any]]:
    """timm's two groups, and a third of the experts' matrices where they decay at a rate of their own."""
    groups: Any = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)
    matrices = [weight for name, weight in model.named_parameters() if fnmatch(name, _EXPERT_MATRICES)]
    if expert_weight_decay is None or not matrices:
        return groups
    known = {id(weight) for weight in matrices}
    for group in groups:
        group["params"] = [weight for weight in group["params"] if id(weight) not in known]
    return [*groups, {"params": matrices, "weight_decay": expert_weight_decay}]


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    *,
    schedule: str,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: int,
    warmup_lr: float,
    min_lr: float,
) -> Scheduler:
    """timm's schedule of this name over all steps, with a linear warm-up inside the first epochs.

    Raises ValueError for an unknown name.
    """
    check_one_of("optim.schedule", schedule, SCHEDULES)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=schedule,
        num_epochs=epochs,
        warmup_epochs=warmup_epochs,
        warmup_lr=warmup_lr,
        min_lr=min_lr,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    assert scheduler is not None
    return scheduler
