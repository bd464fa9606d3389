"""Streams hang on their key, and the global generators come back as they were."""

import random

import numpy as np
import torch

from routerbench.data.randomness import generator, seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_every_key_has_its_own_stream() -> None:
    draws = {
        float(torch.rand((), generator=generator(*key)))
        for key in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2))
    }
    assert len(draws) == 4
    assert float(torch.rand((), generator=generator(0, 0, 1))) in draws


def test_seeded_gives_the_same_draws_and_puts_the_state_back() -> None:
    with seeded(3, 4):
        inside = draw()
    before = random.getstate(), torch.get_rng_state()
    expected_numpy = np.random.RandomState()
    expected_numpy.set_state(np.random.get_state())
    with seeded(3, 4):
        assert draw() == inside
    with seeded(4, 3):
        assert draw() != inside
    assert random.getstate() == before[0]
    assert np.random.rand() == expected_numpy.rand()
    assert torch.equal(torch.get_rng_state(), before[1])
