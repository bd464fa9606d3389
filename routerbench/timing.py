"""How long a step takes: rounds over all contestants of a case, in one process."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], object]
WARMUP_ROUNDS = 1
# A contestant that takes so many times as long as the first takes part in the first few rounds alone.
SLOW, SLOW_ROUNDS = 5, 3


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

    A round has an order of its own: what slows the machine for a while then slows all, and no contestant
    always follows the same one.
    """
    seconds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for number in range(WARMUP_ROUNDS + repeats):
        taking_part = [
            c
            for c in contestants
            if number < WARMUP_ROUNDS + SLOW_ROUNDS or not _is_slow(c, contestants[0], seconds)
        ]
        for contestant in random.Random(number).sample(taking_part, len(taking_part)):
            seconds[contestant.name].append(seconds_of(contestant.step))
            contestant.reset()
    return {name: taken[WARMUP_ROUNDS:] for name, taken in seconds.items()}


def _is_slow(contestant: Contestant, first: Contestant, seconds: dict[str, list[float]]) -> bool:
    return min(seconds[contestant.name]) > SLOW * min(seconds[first.name])


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
