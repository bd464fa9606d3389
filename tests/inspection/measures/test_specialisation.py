"""Specialisation of routings that are made for it."""

import math

import numpy as np
import pytest

from routerbench.inspection.measures.numbers import numbers_of
from routerbench.inspection.measures.specialisation import (
    by_class,
    by_layer,
    by_position,
    met,
    moved,
    specialisation,
)
from routerbench.inspection.seeing.seen import LayerSeen, Seen

GRID = (4, 4)
NUM_PATCHES = 16


def layer(expert: np.ndarray, num_experts: int, grid: tuple[int, int] = GRID, name: str = "a") -> LayerSeen:
    """A layer whose tokens have these experts."""
    served = expert >= 0
    share = met(
        np.broadcast_to(np.arange(len(expert))[:, None], expert.shape), expert, len(expert), num_experts
    )
    return LayerSeen(
        name,
        grid,
        expert.shape[1] - grid[0] * grid[1],
        expert.astype(np.int16),
        np.where(served, expert, 0).astype(np.int16),
        gate=np.ones(expert.shape, dtype=np.float16),
        slots=served.astype(np.float16),
        share=share.astype(np.float32),
        together=np.zeros((num_experts, num_experts), dtype=np.float32),
        influence=np.ones(num_experts, dtype=np.float32),
        weight_similarity=np.eye(num_experts, dtype=np.float32),
        output_similarity=np.eye(num_experts, dtype=np.float32),
    )


def of_class(expert: np.ndarray, labels: np.ndarray, num_experts: int) -> float:
    return by_class(layer(expert, num_experts), labels, 4, 50, np.random.default_rng(1)).share


def test_an_expert_for_each_class_is_one(random: np.random.Generator) -> None:
    labels = np.arange(200) % 4
    expert = np.repeat(labels[:, None], NUM_PATCHES, 1)
    assert of_class(expert, labels, 4) == pytest.approx(1)
    # Two experts for a class, between which the tokens choose by chance: half of the entropy of eight.
    halves = 2 * expert + random.integers(2, size=expert.shape)
    assert of_class(halves, labels, 8) == pytest.approx(2 / 3, abs=0.01)
    # What is dropped is not counted.
    dropped = np.where(random.random(expert.shape) < 0.5, -1, expert)
    assert of_class(dropped, labels, 4) == pytest.approx(1)


def test_fewer_images_of_a_class_than_tell_anything_are_left_out(random: np.random.Generator) -> None:
    expert = random.integers(4, size=(76, NUM_PATCHES))
    enough = by_class(layer(expert, 4), np.arange(76) % 3, 4, 20, random)
    assert math.isfinite(enough.share)  # a class without an image is none
    few = by_class(layer(expert, 4), np.arange(76) % 4, 4, 20, random)
    assert math.isnan(few.share)
    assert few.reason == "classes have fewer than 20 images"


def test_an_expert_for_each_position_is_one(random: np.random.Generator) -> None:
    expert = np.tile(np.arange(NUM_PATCHES) // 4, (100, 1))
    assert by_position(layer(expert, 4), 50, random).share == pytest.approx(1)
    # The class token lies nowhere.
    with_prefix = np.hstack([random.integers(4, size=(100, 1)), expert])
    assert by_position(layer(with_prefix, 4), 50, random).share == pytest.approx(1)


def test_random_routing_is_nothing() -> None:
    labels = np.arange(100) % 4
    held, by_chance = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        expert, other = random.integers(8, size=(2, 100, NUM_PATCHES))
        for found in (
            by_class(layer(expert, 8), labels, 4, 50, random),
            by_position(layer(expert, 8), 50, random),
            by_layer(layer(expert, 8), layer(other, 8), 50, random),
        ):
            held.append(found.low <= 0 <= found.high)
            by_chance.append(found.p <= 0.05)
    # Of 60 intervals of 95 % there are 57 and three standard deviations of 1.7, of 60 tests at 0.05 the rest.
    assert sum(held) >= 52
    assert sum(by_chance) <= 8


def test_neighbours_that_are_alike_are_no_meaning_of_places() -> None:
    # The left and the right half of an image have different experts, from an edge that lies anywhere.
    halves = np.tile(np.arange(4) // 2, (4, 1))

    def p(seed: int) -> float:
        random = np.random.default_rng(seed)
        maps = [np.roll(halves, random.integers(4), 1).ravel() ^ random.integers(2) for _ in range(60)]
        return by_position(layer(np.stack(maps), 2), 99, random).p

    assert np.mean([p(seed) <= 0.05 for seed in range(60)]) <= 0.13  # 3 standard deviations above 0.05


def test_the_same_expert_in_the_next_layer_is_one() -> None:
    random = np.random.default_rng(0)
    expert = random.integers(4, size=(200, NUM_PATCHES))
    renamed = np.array([2, 0, 3, 1])[expert]
    assert by_layer(layer(expert, 4), layer(renamed, 4), 50, random).share == pytest.approx(1)
    # That an image has two experts alone, and the next layer its own two, does not tie its patches.
    pair = 2 * random.integers(2, size=(200, 1))
    one, other = pair + random.integers(2, size=(2, 200, NUM_PATCHES))
    found = by_layer(layer(one, 4), layer(other, 4), 100, random)
    assert found.low <= 0 <= found.high
    assert found.null > 0.4


def test_images_move_as_a_whole(random: np.random.Generator) -> None:
    values = np.arange(6)[None] + 10 * np.arange(50)[:, None]
    (once,) = moved(values, (2, 3), 1, random)
    assert (once // 10 == np.arange(50)[:, None]).all()
    # Right of what is at 0 is what was right of it: 1 of (0, 1, 2), wherever it went.
    grid = (once % 10).reshape(50, 2, 3)
    row, column = np.argwhere(grid == 0)[:, 1:].T
    assert (grid[np.arange(50), row, (column + 1) % 3] == 1).all()
    assert (grid[np.arange(50), (row + 1) % 2, column] == 3).all()
    assert len(np.unique(once % 10, axis=0)) == 6


def seen(*layers: LayerSeen, num_classes: int = 2) -> Seen:
    labels = np.arange(len(layers[0].expert)) % num_classes
    names = tuple(f"class {index}" for index in range(num_classes))
    return Seen(layers, labels, labels, names)


def test_numbers_by_name(random: np.random.Generator) -> None:
    expert = np.repeat(np.arange(40)[:, None] % 2, NUM_PATCHES, 1)
    alike, other = layer(expert, 2), layer(random.integers(2, size=expert.shape), 2, name="b")
    numbers = numbers_of(seen(alike, other), permutations=50)
    assert numbers["a/class"] == pytest.approx(1)
    assert numbers["class"] == pytest.approx((numbers["a/class"] + numbers["b/class"]) / 2)
    assert {f"a/class{end}" for end in ("", "_low", "_high", "_null", "_p")} <= numbers.keys()
    assert numbers["next_layer"] == numbers["a/next_layer"]
    assert "b/next_layer" not in numbers
    assert numbers["a/experts_per_image"] == 1
    assert numbers["b/experts_per_image"] == 2
    assert numbers["a/image_similarity"] == 0
    assert all(type(value) is float and math.isfinite(value) for value in numbers.values())
    assert numbers == numbers_of(seen(alike, other), permutations=50)


def test_layers_of_another_grid_are_no_pair(random: np.random.Generator) -> None:
    fine = layer(random.integers(2, size=(40, 16)), 2)
    coarse = layer(random.integers(2, size=(40, 4)), 2, grid=(2, 2), name="b")
    assert "next_layer" not in specialisation(seen(fine, coarse), 20)["a"]


@pytest.mark.parametrize("num_experts", [1, 4])
def test_what_does_not_exist_is_left_out(num_experts: int, random: np.random.Generator) -> None:
    # One class, and all tokens at one expert or dropped.
    everything = layer(np.where(random.random((10, NUM_PATCHES)) < 0.5, 0, -1), num_experts)
    numbers = numbers_of(seen(everything, num_classes=1), permutations=20)
    assert not any("class" in name or "position" in name for name in numbers)
    assert all(math.isfinite(value) for value in numbers.values())
    found = specialisation(seen(everything, num_classes=1), 20)["a"]
    assert found["class"].reason == "one expert has all tokens"
