"""Learning-rate schedules: timm's, and those of the published V-MoE code. Each is a function of the step."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler

from routerbench.checks import check_count, check_one_of, check_positive, did_you_mean

# What a schedule must be told beside its warm-up, by timm's names and in epochs ...
TIMM = {
    "cosine": (),
    "tanh": (),
    "poly": (),
    "step": ("decay_epochs", "decay_rate"),
    "multistep": ("decay_milestones", "decay_rate"),
    "constant": (),
    "wsd": ("decay_epochs",),
    "rsqrt": ("decay_epochs", "stable_timescale"),
}
# ... or by the names of google-research/vmoe and in steps.
PUBLISHED = {
    "warmup_linear_decay": (),
    "warmup_cosine_decay": (),
    "warmup_polynomial_decay": ("power",),
    "warmup_exponential_decay": ("decay_rate", "transition_steps"),
    "big_vision_rsqrt": ("timescale", "cooldown_steps"),
}
NEEDED = TIMM | PUBLISHED
# What timm's may be told further.
OPTIONAL = {
    "cosine": ("cooldown_epochs", "k_decay"),
    "tanh": ("cooldown_epochs",),
    "poly": ("decay_rate", "cooldown_epochs", "k_decay"),
    "wsd": ("decay_fn",),
    "rsqrt": ("decay_fn",),
}
COUNTS = ("decay_epochs", "cooldown_epochs", "cooldown_steps")
EPOCHS = ("decay_epochs", "cooldown_epochs", "stable_timescale")  # and milestones
DECAYS = ("linear", "1-sqrt", "cosine", "exp")
WITHOUT_END = ("step", "multistep", "constant", "warmup_exponential_decay", "big_vision_rsqrt")


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    *,
    schedule: str,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: int | None,
    warmup_steps: int | None = None,
    warmup_lr: float,
    min_lr: float,
    arguments: Mapping[str, Any] | None = None,
) -> Scheduler:
    """The schedule of this name over all steps, with a linear warm-up at its beginning.

    The warm-up of timm's hides what they would be without it; the published ones begin after theirs.
    `arguments` are those of the schedule alone. Raises ValueError for what is unknown, missing or impossible.
    """
    check_one_of("optim.schedule", schedule, tuple(NEEDED))
    arguments = {} if arguments is None else arguments
    _check_arguments(schedule, arguments)
    if min_lr and schedule in WITHOUT_END:
        raise ValueError(
            f"optim.min_lr={min_lr} means nothing to optim.schedule={schedule}: say optim.min_lr=0"
        )
    steps = epochs * steps_per_epoch
    warmup = _warmup(warmup_epochs, warmup_steps, steps_per_epoch)
    in_steps = _in_steps(arguments, steps_per_epoch)
    cooldown = in_steps.get("cooldown_epochs", in_steps.get("cooldown_steps", 0))
    left = steps - warmup - cooldown
    if left < (schedule in PUBLISHED or cooldown > 0):
        raise ValueError(
            f"a warm-up of {warmup} and a cooldown of {cooldown} steps leave {max(left, 0)} of the run's "
            f"{steps} to optim.schedule={schedule}: give fewer, or more epochs"
        )
    by_timm = partial(_by_timm, optimizer, warmup=warmup, warmup_lr=warmup_lr, min_lr=min_lr)
    if schedule in TIMM:
        of_timm = {key: value for key, value in in_steps.items() if key != "cooldown_epochs"}
        return by_timm(schedule, steps - cooldown, **of_timm)
    if schedule == "warmup_cosine_decay":
        return by_timm("cosine", left, warmup_prefix=True)
    if schedule in ("warmup_linear_decay", "warmup_polynomial_decay"):  # timm's rate of decay is its power
        return by_timm("poly", left, warmup_prefix=True, decay_rate=arguments.get("power", 1.0))
    is_rsqrt = schedule == "big_vision_rsqrt"
    factor = reciprocal_sqrt(left + cooldown, **arguments) if is_rsqrt else exponential_decay(**arguments)
    return FormulaScheduler(optimizer, factor, warmup, warmup_lr)


class FormulaScheduler(Scheduler):
    """After a linear warm-up the optimizer's rate times `factor` of the steps since."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        factor: Callable[[int], float],
        warmup_steps: int,
        warmup_lr: float,
    ) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=False)
        self.factor = factor
        self.warmup_steps = warmup_steps
        self.warmup_lr = warmup_lr
        self.step_update(0)

    def _get_lr(self, t: int) -> list[float]:
        if t < self.warmup_steps:
            way = t / self.warmup_steps
            return [self.warmup_lr + way * (rate - self.warmup_lr) for rate in self.base_values]
        return [rate * self.factor(t - self.warmup_steps) for rate in self.base_values]


def exponential_decay(decay_rate: int | float, transition_steps: int | float) -> Callable[[int], float]:
    """By `decay_rate` in every `transition_steps`, smoothly."""
    return lambda t: decay_rate ** (t / transition_steps)


def reciprocal_sqrt(steps: int, timescale: int | float, cooldown_steps: int) -> Callable[[int], float]:
    """The reciprocal square root, which stands still while the last `cooldown_steps` go to 0 in a line."""
    main = steps - cooldown_steps

    def factor(t: int) -> float:
        left = 1.0 if t < main else max(steps - t, 0) / cooldown_steps
        return left / math.sqrt(1 + min(t, main) / timescale)

    return factor


def _by_timm(
    optimizer: torch.optim.Optimizer, schedule: str, steps: int, *, warmup: int, **settings: Any
) -> Scheduler:
    """timm's schedule over so many steps; all of its epochs are steps here."""
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=schedule,
            num_epochs=steps,
            warmup_epochs=warmup,
            step_on_epochs=False,
            updates_per_epoch=1,
            **settings,
        )
    except ValueError as error:
        raise ValueError(f"optim.schedule={schedule} cannot be built: {error}") from error
    assert scheduler is not None
    return scheduler


def _in_steps(arguments: Mapping[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """The same with steps for epochs."""

    def of(key: str, value: Any) -> Any:
        if key == "decay_milestones":
            return [epoch * steps_per_epoch for epoch in value]
        return value * steps_per_epoch if key in EPOCHS else value

    return {key: of(key, value) for key, value in arguments.items()}


def _warmup(epochs: int | None, steps: int | None, steps_per_epoch: int) -> int:
    """The steps of the warm-up, which is given in one of two units."""
    if epochs is not None and steps is None:
        return epochs * steps_per_epoch
    if steps is not None and epochs is None:
        return steps
    raise ValueError(
        f"optim.warmup_epochs={epochs} with optim.warmup_steps={steps}: give one of them, null for the other"
    )


def _check_arguments(schedule: str, arguments: Mapping[str, Any]) -> None:
    known = (*NEEDED[schedule], *OPTIONAL.get(schedule, ()))
    for key, value in arguments.items():
        name = f"optim.schedule_arguments.{key}"
        if key not in known:
            has = f", which has: {', '.join(known)}{did_you_mean(key, known)}" if known else ""
            raise ValueError(f"{name}={value} means nothing to optim.schedule={schedule}{has}")
        _check_argument(name, key, value)
    for key in NEEDED[schedule]:
        if key not in arguments:
            raise ValueError(f"optim.schedule={schedule} needs optim.schedule_arguments.{key}")


def _check_argument(name: str, key: str, value: Any) -> None:
    if key == "decay_fn":
        check_one_of(name, value, DECAYS)
    elif key == "decay_milestones":
        if not isinstance(value, list) or value != sorted(value):
            raise ValueError(f"{name}={value} must be a list of epochs, from small to large")
        for epoch in value:
            check_count(name, epoch)
    elif key in COUNTS:
        check_count(name, value)
    else:
        check_positive(name, value)
