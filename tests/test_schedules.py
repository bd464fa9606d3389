"""Learning rates by hand, and against those of the published code."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from timm.scheduler.scheduler import Scheduler
from torch import nn

from routerbench.optim import make_optimizer
from routerbench.schedules import NEEDED, make_scheduler


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def scheduler_of(schedule: str, lr: float = 1.0, **changes: Any) -> Scheduler:
    """A schedule over 5 epochs of 10 steps without a warm-up, but for the `changes`."""
    settings: dict[str, Any] = {
        "epochs": 5,
        "steps_per_epoch": 10,
        "warmup_epochs": None if "warmup_steps" in changes else 0,
        "warmup_lr": 0.0,
        "min_lr": 0.0,
        **changes,
    }
    optimizer = make_optimizer(nn.Linear(2, 2), name="sgd", lr=lr, weight_decay=0.1)
    return make_scheduler(optimizer, schedule=schedule, **settings)


def rates_of(scheduler: Scheduler, num_steps: int = 50) -> list[float]:
    """The rate that the optimizer has in each step, and after the last."""
    rates = [scheduler.optimizer.param_groups[0]["lr"]]
    for step in range(1, num_steps + 1):
        scheduler.step_update(step)
        assert len({group["lr"] for group in scheduler.optimizer.param_groups}) == 1
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
    return rates


PUBLISHED = (
    "constant",
    "warmup_linear_decay",
    "warmup_cosine_decay",
    "warmup_polynomial_decay",
    "warmup_exponential_decay",
    "big_vision_rsqrt",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_schedules_have_the_published_rates(name: str, golden: Any) -> None:
    published = golden("schedules", torch.float64)
    config = published.meta["configs"][name]
    lr = config.pop("value", None) or config.pop("peak_value")
    scheduler = scheduler_of(
        config.pop("schedule"),
        lr,
        warmup_steps=config.pop("warmup_steps", 0),
        min_lr=config.pop("end_value", 0.0),
        arguments=config,
    )
    np.testing.assert_allclose(rates_of(scheduler), published.arrays[name], rtol=1e-6, atol=1e-9)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "step": {"decay_epochs": 2, "decay_rate": 0.5},
    "multistep": {"decay_milestones": [1, 3], "decay_rate": 0.5},
    "wsd": {"decay_epochs": 2, "decay_fn": "linear"},
    "rsqrt": {"decay_epochs": 2, "stable_timescale": 0.5},
    "warmup_polynomial_decay": {"power": 2.0},
    "warmup_exponential_decay": {"decay_rate": 0.5, "transition_steps": 10},
    "big_vision_rsqrt": {"timescale": 20, "cooldown_steps": 12},
}


def test_timms_schedules_count_in_epochs() -> None:
    rates = rates_of(scheduler_of("step", arguments=ARGUMENTS["step"]))
    assert [rates[0], rates[19], rates[20], rates[39], rates[40]] == [1.0, 1.0, 0.5, 0.5, 0.25]
    rates = rates_of(scheduler_of("multistep", arguments=ARGUMENTS["multistep"]))
    # timm looks one step ahead.
    assert [rates[8], rates[9], rates[28], rates[29]] == [1.0, 0.5, 0.5, 0.25]
    rates = rates_of(scheduler_of("wsd", arguments=ARGUMENTS["wsd"], min_lr=0.5))
    assert [rates[0], rates[30], rates[40], rates[50]] == [1.0, 1.0, 0.75, 0.5]
    rates = rates_of(scheduler_of("rsqrt", arguments=ARGUMENTS["rsqrt"]))
    assert rates[15] == pytest.approx(1 / 2)  # (1 + 15 / 5) ** -1/2
    rates = rates_of(scheduler_of("poly", arguments={"decay_rate": 1.0, "cooldown_epochs": 1}, min_lr=0.5))
    assert [rates[0], rates[20], rates[40], rates[45]] == [1.0, 0.75, 0.5, 0.5]


def test_a_warm_up_is_given_in_epochs_or_steps() -> None:
    assert rates_of(scheduler_of("cosine", warmup_epochs=2)) == rates_of(
        scheduler_of("cosine", warmup_steps=20)
    )


@pytest.mark.parametrize("schedule", NEEDED)
def test_a_rate_hangs_on_its_step_alone(schedule: str) -> None:
    settings: dict[str, Any] = {"arguments": ARGUMENTS.get(schedule), "warmup_epochs": 1}
    expected = rates_of(scheduler_of(schedule, **settings))
    resumed = scheduler_of(schedule, **settings)
    for step in (50, 7, 31, 30):
        resumed.step_update(step)
        assert resumed.optimizer.param_groups[0]["lr"] == expected[step]
    assert expected[:10] == pytest.approx([step / 10 for step in range(10)], rel=1e-4)  # tanh starts at less


@pytest.mark.parametrize(
    ("schedule", "changes", "text"),
    [
        (
            "plateau",
            {},
            f"optim.schedule=plateau is not one of: {', '.join(NEEDED)}",
        ),
        ("step", {}, "optim.schedule=step needs optim.schedule_arguments.decay_epochs"),
        (
            "cosine",
            {"arguments": {"power": 2}},
            "optim.schedule_arguments.power=2 means nothing to optim.schedule=cosine, which has: "
            "cooldown_epochs, k_decay",
        ),
        (
            "constant",
            {"arguments": {"power": 2}},
            "optim.schedule_arguments.power=2 means nothing to optim.schedule=constant",
        ),
        (
            "constant",
            {"min_lr": 0.1},
            "optim.min_lr=0.1 means nothing to optim.schedule=constant: say optim.min_lr=0",
        ),
        (
            "cosine",
            {"warmup_epochs": 1, "warmup_steps": 3},
            "optim.warmup_epochs=1 with optim.warmup_steps=3: give one of them, null for the other",
        ),
        (
            "cosine",
            {"warmup_epochs": None},
            "optim.warmup_epochs=None with optim.warmup_steps=None: give one of them, null for the other",
        ),
        (
            "cosine",
            {"warmup_steps": 51},
            "a warm-up of 51 and a cooldown of 0 steps leave 0 of the run's 50 to optim.schedule=cosine: "
            "give fewer, or more epochs",
        ),
        (
            "cosine",
            {"arguments": {"cooldown_epochs": 5}},
            "a warm-up of 0 and a cooldown of 50 steps leave 0 of the run's 50 to optim.schedule=cosine: "
            "give fewer, or more epochs",
        ),
        (
            "warmup_cosine_decay",
            {"warmup_steps": 50},
            "a warm-up of 50 and a cooldown of 0 steps leave 0 of the run's 50 to "
            "optim.schedule=warmup_cosine_decay: give fewer, or more epochs",
        ),
        (
            "warmup_polynomial_decay",
            {"arguments": {"power": 0}},
            "optim.schedule_arguments.power=0 must be a number above 0",
        ),
        (
            "multistep",
            {"arguments": {"decay_milestones": [3, 1], "decay_rate": 0.5}},
            "optim.schedule_arguments.decay_milestones=[3, 1] must be a list of epochs, from small to large",
        ),
        (
            "wsd",
            {"arguments": {"decay_epochs": 6}},
            "optim.schedule=wsd cannot be built: wsd schedule requires 0 < decay_epochs <= epochs - "
            "warmup_epochs, got decay 60 and stable + decay length 50.",
        ),
    ],
)
def test_what_a_schedule_does_not_take_is_refused(schedule: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=exactly(text)):
        scheduler_of(schedule, **changes)
