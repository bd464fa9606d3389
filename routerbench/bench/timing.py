"""How long a step takes: rounds over all contestants of a case, in one process."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], object]
WARMUP_ROUNDS = 2


@dataclass(frozen=True)
class Contestant:
    """A step that can be taken again and again, and what brings back the state before it."""

    name: str
    step: Step
    reset: Callable[[], None]
    backend: str | None = None
    """Of its MoE layers, where it has any."""


def rounds(
    contestants: Sequence[Contestant], seconds_of: Callable[[Step], float], repeats: int
) -> dict[str, list[float]]:
    """Seconds of every contestant's step in each of `repeats` rounds, after rounds that warm up.

    All take part in each round, in an order of its own: what slows the machine for a while then slows all,
    and no contestant always follows the same one.
    """
    seconds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for number in range(WARMUP_ROUNDS + repeats):
        for contestant in random.Random(number).sample(contestants, len(contestants)):
            taken = seconds_of(contestant.step)
            contestant.reset()
            if number >= WARMUP_ROUNDS:
                seconds[contestant.name].append(taken)
    return seconds


def clock(device: torch.device, threads: int) -> tuple[str, Callable[[Step], float]]:
    """The clock for steps on this device, with its name.

    CPU time leaves out what other programs take, but adds up the threads, waiting ones too: so it is for one.
    """
    if device.type == "cuda":
        return "CUDA events", cuda_seconds
    if device.type != "cpu" or threads > 1:
        return "wall time", wall_seconds
    return "CPU time", cpu_seconds


def cpu_seconds(step: Step) -> float:
    """CPU time of this process."""
    start = time.process_time()
    step()
    return time.process_time() - start


def wall_seconds(step: Step) -> float:
    """Time on the wall."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def cuda_seconds(step: Step) -> float:
    """Time on the GPU between the start of the first kernel and the end of the last."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000
