"""What a run will take, by what earlier runs took; nothing is estimated where none tells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass
class Mean:
    """A mean that is taken as its values come."""

    total: int | float = 0
    num_runs: int = 0

    def add(self, value: int | float) -> None:
        """Take one more value."""
        self.total, self.num_runs = self.total + value, self.num_runs + 1

    @property
    def value(self) -> float | None:
        """None without values."""
        return self.total / self.num_runs if self.num_runs else None


@dataclass(frozen=True)
class Experience:
    """What the finished runs of one backbone, data and epochs took."""

    groups: dict[str, list[Entry]] = field(default_factory=dict)
    """The seeds of each configuration."""
    num_images: Mean = field(default_factory=Mean)
    seconds: dict[tuple[str | None, int], Mean] = field(default_factory=dict)
    """For each FLOP per image, by device and number of processes."""
    disk_bytes: Mean = field(default_factory=Mean)
    """For each parameter."""

    def add(self, run: Entry) -> None:
        """Take one more finished run."""
        self.groups.setdefault(run.group, []).append(run)
        if run.num_images is not None:
            self.num_images.add(run.num_images)
        if run.train_seconds is not None and run.flops_per_image:
            where = (run.device, run.num_processes)
            self.seconds.setdefault(where, Mean()).add(run.train_seconds / run.flops_per_image)
        if run.params_total:
            self.disk_bytes.add(run.disk_bytes / run.params_total)

    def recorded(self, group: str) -> Entry | None:
        """A run of this configuration that says what it costs."""
        seeds = self.groups.get(group, ())
        return next((run for run in seeds if run.flops_per_image is not None), None)


def expected(group: str, size: Size | None, device: str, num_processes: int, earlier: Experience) -> Expected:
    """Of one run, by its other seeds or else its twins; `size` where none of its seeds is recorded."""
    run = earlier.recorded(group)
    known = run or size
    flops, params = (known.flops_per_image, known.params_total) if known else (None, None)
    images, seeds = earlier.num_images.value, earlier.groups.get(group, [])
    here = [one for one in seeds if (one.device, one.num_processes) == (device, num_processes)]
    seconds = [one.train_seconds for one in here if one.train_seconds is not None]
    by_size = earlier.seconds.get((device, num_processes), Mean())
    return Expected(
        flops,
        run is None and flops is not None,
        None if flops is None or images is None else PASSES_OF_TRAINING * flops * images,
        _estimate(seconds, by_size, flops),
        _estimate([one.disk_bytes for one in seeds], earlier.disk_bytes, params),
    )


def _estimate(of_seeds: Sequence[int | float], by_size: Mean, size: int | float | None) -> Estimate | None:
    if of_seeds:
        return Estimate(math.fsum(of_seeds) / len(of_seeds), "seeds", len(of_seeds))
    rate = by_size.value
    return None if rate is None or size is None else Estimate(rate * size, "twins", by_size.num_runs)
