"""What a run will take, by what earlier runs took; nothing is estimated where none tells."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from routerbench.ledger.entry import Entry

# Forward, and backward for the inputs and for the weights of each product.
PASSES_OF_TRAINING = 3


@dataclass(frozen=True)
class Estimate:
    """A number, and what it rests on."""

    value: int | float
    basis: Literal["seeds", "twins"]
    """Other seeds of the same configuration, or others of the same backbone, data and epochs, by size."""
    num_runs: int


@dataclass(frozen=True)
class Expected:
    """Of one run of a configuration, None where no earlier record tells."""

    flops_per_image: int | float | None
    """Of a forward pass in training."""
    counted: bool
    """Whether that is counted on a model with a classifier of two classes, for want of a record."""
    training_flops: int | float | None
    seconds: Estimate | None
    """Of training alone, without evaluations."""
    disk_bytes: Estimate | None


@dataclass(frozen=True)
class Size:
    """What is counted on a model without weights."""

    flops_per_image: int
    params_total: int


def recorded(group: str, done: Iterable[Entry]) -> Entry | None:
    """A finished run of the same configuration that says what it costs."""
    return next((one for one in done if one.group == group and one.flops_per_image is not None), None)


def expected(group: str, size: Size | None, device: str, num_processes: int, done: list[Entry]) -> Expected:
    """By the finished runs of the same backbone, data and epochs; `size` where none is of this group."""
    earlier = recorded(group, done)
    known = earlier or size
    flops, params = (known.flops_per_image, known.params_total) if known else (None, None)
    alike = [one for one in done if one.device == device and one.num_processes == num_processes]
    images = [one.num_images for one in done if one.num_images is not None]
    trained = PASSES_OF_TRAINING * flops * _mean(images) if flops is not None and images else None
    return Expected(
        flops,
        earlier is None and flops is not None,
        trained,
        _estimate(group, alike, lambda one: one.train_seconds, lambda one: one.flops_per_image, flops),
        _estimate(group, done, lambda one: one.disk_bytes, lambda one: one.params_total, params),
    )


def _estimate(
    group: str,
    done: Iterable[Entry],
    took: Callable[[Entry], int | float | None],
    size_of: Callable[[Entry], int | float | None],
    size: int | float | None,
) -> Estimate | None:
    """The mean of the group or else, for one of this size, by the mean over sizes of the others."""
    of_group, rates = [], []
    for one in done:
        value, other = took(one), size_of(one)
        if value is not None and one.group == group:
            of_group.append(value)
        if value is not None and other:
            rates.append(value / other)
    if of_group:
        return Estimate(_mean(of_group), "seeds", len(of_group))
    return Estimate(_mean(rates) * size, "twins", len(rates)) if rates and size is not None else None


def _mean(values: list[int | float]) -> float:
    return math.fsum(values) / len(values)
