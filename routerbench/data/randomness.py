"""Randomness that hangs on seed, epoch and image alone, and leaves the global generators as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

ORDER, AUGMENT, WORKERS, MIX, ERASE, HOLD_OUT = range(1, 7)  # what a stream of random numbers is for


def generator(*key: int) -> torch.Generator:
    """A generator of its own for each key (seed, epoch, purpose)."""
    return torch.Generator().manual_seed(mix(*key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Inside, the global generators of Python, numpy and torch (CPU) start from `key`; afterwards, as before.

    timm's and torchvision's transforms draw from all three and take no generator.
    """
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = mix(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed CUDA too
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)


def mix(*key: int) -> int:
    """64 bits in which every bit hangs on every number of the key."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
