"""Mutual information by hand, and the correction and interval of its share by simulation."""

import math

import numpy as np
import pytest

from routerbench.stats.information import Explained, entropy, explained, mutual_information

NOTHING = np.zeros((0, 2, 2))


def of_classes(
    labels: np.ndarray, of_images: np.ndarray, seed: int = 0, permutations: int = 100
) -> Explained:
    """The share of the experts' entropy that the label of an image explains; rows are images."""
    random = np.random.default_rng(seed)
    num_classes = int(labels.max()) + 1

    def table(rows: np.ndarray) -> np.ndarray:
        return np.stack([rows[labels == label].sum(0) for label in range(num_classes)])

    nulls = [table(of_images[random.permutation(len(labels))]) for _ in range(permutations)]
    return explained(table(of_images), nulls, lambda values: (values[labels] * of_images).sum(1))


def routed(
    random: np.random.Generator, num_images: int, effect: float, num_classes: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and how many of 16 tokens go to each of 4 experts; tokens of an image are alike."""
    labels = random.integers(num_classes, size=num_images)
    by_class = effect * np.eye(4)[labels % 4] + (1 - effect) / 4
    gates = 0.7 * by_class + 0.3 * random.dirichlet(np.full(4, 0.5), size=num_images)
    return labels, random.multinomial(16, gates)


def test_entropy_by_hand() -> None:
    assert entropy(np.array([[1, 1], [3, 0], [0, 0]])) == pytest.approx([math.log(2), 0, 0])
    assert entropy(np.array([0.25, 0.25, 0.5])) == pytest.approx(1.5 * math.log(2))


def test_information_by_hand() -> None:
    # Independent; the same; and in halves that are told apart by one row alone: log 2 - 0.5 * log 2.
    tables = np.array([[[2, 2], [2, 2]], [[4, 0], [0, 4]], [[4, 0], [0, 0]]])
    assert mutual_information(tables) == pytest.approx([0, math.log(2), 0])
    assert mutual_information(np.array([[4, 0], [2, 2]])) == pytest.approx(
        entropy(np.array([6, 2])) - 0.5 * math.log(2)
    )


def test_fractions_count_as_they_are() -> None:
    table = np.array([[0.2, 0.1, 0.4], [0.3, 0.0, 0.5]])
    assert mutual_information(10 * table) == pytest.approx(mutual_information(table))


@pytest.mark.parametrize(("num_images", "low"), [(12, 0.5), (400, 0.97)])
def test_perfect_specialisation_is_one(num_images: int, low: float) -> None:
    labels = np.arange(num_images) % 4
    found = of_classes(labels, 16 * np.eye(4, dtype=int)[labels])
    assert found.share == pytest.approx(1)
    assert found.high == 1
    assert found.low > low
    assert found.p == pytest.approx(1 / 101)


@pytest.mark.parametrize(("num_images", "num_classes"), [(20, 5), (200, 5), (200, 40)])
def test_random_routing_is_within_its_interval_of_zero(num_images: int, num_classes: int) -> None:
    found = [
        of_classes(*routed(np.random.default_rng(seed), num_images, 0.0, num_classes), seed)
        for seed in range(40)
    ]
    assert np.mean([one.low <= 0 <= one.high for one in found]) >= 0.9
    assert np.mean([one.p <= 0.05 for one in found]) <= 0.125  # of 40 draws 5, which 1 in 70 exceed
    # Not so without the correction.
    assert abs(np.mean([one.share for one in found])) < 0.2 * np.mean([one.null for one in found])


def test_classes_need_not_be_alike_in_number() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 12, 3])
    found = of_classes(labels, random.multinomial(16, np.full(4, 0.25), size=len(labels)))
    assert found.low <= 0 <= found.high
    assert of_classes(labels, 16 * np.eye(3, dtype=int)[labels]).share == pytest.approx(1)


@pytest.mark.parametrize("effect", [0.1, 0.6])
def test_the_interval_holds_the_truth_as_often_as_it_says(effect: float) -> None:
    labels, of_images = routed(np.random.default_rng(99), 200_000, effect)
    table = np.stack([of_images[labels == label].sum(0) for label in range(5)])
    truth = float(mutual_information(table) / entropy(table.sum(0)))
    found = [
        of_classes(*routed(np.random.default_rng(seed), 200, effect), seed, permutations=40)
        for seed in range(200)
    ]
    # Of 200 intervals of 95 %: 190 and three standard deviations of 3.1.
    assert 180 <= sum(one.low <= truth <= one.high for one in found) <= 199
    assert np.mean([one.share for one in found]) == pytest.approx(truth, rel=0.05)


def test_what_nulls_retain_is_no_chance() -> None:
    # Exchanged labels are in 19 of 99 cases of the same class: without `retained` the share is 12 % too low.
    random = np.random.default_rng(1)
    by_classes = random.dirichlet(np.full(8, 0.3), size=20)
    truth = float(mutual_information(by_classes) / entropy(by_classes.sum(0)))
    labels = np.arange(100) % 20

    def table(rows: np.ndarray) -> np.ndarray:
        return np.stack([rows[labels == label].sum(0) for label in range(20)])

    found = []
    for _ in range(20):
        gates = random.gamma(3 * by_classes[labels] + 1e-9)
        rows = random.multinomial(16, gates / gates.sum(1, keepdims=True))
        nulls = [table(rows[random.permutation(100)]) for _ in range(20)]
        found.append(explained(table(rows), nulls, lambda values: values[labels].sum(1), 19 / 99).share)
    assert np.mean(found) == pytest.approx(truth, rel=0.08)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ([[3, 0], [5, 0]], "one expert has all tokens"),
        ([[0, 0], [0, 0]], "no token"),
        ([[3, 2], [0, 0]], "there is nothing to tell apart"),
    ],
)
def test_no_number_where_there_is_none(table: list[list[int]], reason: str) -> None:
    found = explained(np.array(table), NOTHING, lambda values: values.sum(1))
    assert math.isnan(found.share)
    assert found.reason == reason


def test_no_number_where_chance_explains_all() -> None:
    # Two images of two classes: with either label each says all.
    found = of_classes(np.array([0, 1]), np.array([[4, 0], [0, 4]]))
    assert math.isnan(found.share)
    assert found.reason == "chance explains all: there are too few images"


def test_experts_without_a_token_change_nothing() -> None:
    labels, of_images = routed(np.random.default_rng(0), 100, 0.5)
    more = np.pad(of_images, ((0, 0), (0, 3)))
    assert of_classes(labels, more).share == pytest.approx(of_classes(labels, of_images).share)
