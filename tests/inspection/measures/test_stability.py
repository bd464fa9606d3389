"""Stability over seeds of routings that are made alike."""

from dataclasses import replace

import numpy as np
import pytest

from routerbench.evaluations.routers.matching import matched
from routerbench.inspection.measures.stability import adjusted_information, over_seeds
from routerbench.inspection.seeing.seen import LayerSeen, Seen

SHAPE = (100, 10)  # a class token and nine patches


def seen(first: np.ndarray, num_experts: int = 4) -> Seen:
    """One layer in which tokens lean to these experts."""
    ones = np.ones(first.shape, dtype=np.float16)
    square = np.eye(num_experts, dtype=np.float32)
    layer = LayerSeen(
        name="a",
        grid=(3, 3),
        num_prefix=1,
        expert=first.astype(np.int16),
        first=first.astype(np.int16),
        gate=ones,
        slots=ones,
        share=np.ones((len(first), num_experts), dtype=np.float32),
        together=square,
        influence=np.ones(num_experts, dtype=np.float32),
        weight_similarity=square,
        output_similarity=square,
    )
    labels = np.zeros(len(first), dtype=np.int64)
    return Seen((layer,), labels, labels, ("one",))


def test_experts_are_paired_by_hand() -> None:
    # Each expert of the first run meets another one of the second most often, the last two both expert 0:
    # that with more to lose has it.
    together = np.array([[0, 5, 0], [9, 0, 1], [8, 0, 3]])
    assert matched(together).tolist() == [1, 0, 2]


def test_the_same_under_other_names_is_one(random: np.random.Generator) -> None:
    first = random.integers(4, size=SHAPE)
    numbers = over_seeds([seen(first), seen(np.array([3, 1, 0, 2])[first])])
    assert numbers["a/agreement"] == numbers["agreement"] == 1
    assert numbers["adjusted_information"] == pytest.approx(1)
    assert 0.25 < numbers["agreement_null"] < 0.45


def test_by_chance_is_as_the_null(random: np.random.Generator) -> None:
    numbers = over_seeds([seen(random.integers(4, size=SHAPE)) for _ in range(3)])
    assert numbers["agreement"] == pytest.approx(numbers["agreement_null"], abs=0.03)
    assert numbers["adjusted_information"] == pytest.approx(0, abs=0.02)


def test_what_positions_or_images_explain_is_in_their_null(random: np.random.Generator) -> None:
    by_position = np.tile(np.arange(10) % 4, (100, 1))
    numbers = over_seeds([seen(by_position), seen(by_position)])
    assert numbers["agreement"] == numbers["agreement_null"] == 1
    by_image = np.repeat(random.integers(4, size=(100, 1)), 10, 1)
    numbers = over_seeds([seen(by_image), seen(by_image)])
    assert numbers["agreement"] == numbers["agreement_null"] == 1


def test_adjusted_information_by_hand() -> None:
    assert adjusted_information(np.array([[50, 0], [0, 50]])) == pytest.approx(1)
    # Independent, and less than by chance: 0 - 1/200 over log 2 - 1/200.
    assert adjusted_information(np.array([[25, 25], [25, 25]])) == pytest.approx(-0.005 / (np.log(2) - 0.005))
    assert adjusted_information(np.array([[7, 0], [0, 0]])) == 1


def test_what_one_run_drops_is_not_compared(random: np.random.Generator) -> None:
    first = random.integers(4, size=SHAPE)
    dropped = np.where(random.random(SHAPE) < 0.5, -1, first)
    assert over_seeds([seen(first), seen(dropped)])["agreement"] == 1
    assert over_seeds([seen(first), seen(np.full(SHAPE, -1))])["agreement"] == 0


def test_runs_that_do_not_compare_are_refused(random: np.random.Generator) -> None:
    one = seen(random.integers(4, size=SHAPE))
    with pytest.raises(ValueError, match="takes two runs: give one with another seed"):
        over_seeds([one])
    for other in (seen(one.layers[0].first[:50]), replace(one, labels=one.labels + 1)):
        with pytest.raises(ValueError, match="takes runs of the same test images and layers: give such"):
            over_seeds([one, other])
