"""Maps of an evaluation, worked by hand."""

import math

import numpy as np
import pytest
import torch

from routerbench.maps import RoutingMaps, expert_of
from routerbench.moe.plan import SoftPlan, SparsePlan
from routerbench.moe.slots import fill_slots


def plan() -> SparsePlan:
    """Two images of two tokens in one group, one slot an expert: token 0 in expert 0, token 3 in expert 1."""
    return SparsePlan(
        token=torch.tensor([[[0], [3]]]),
        weight=torch.ones(1, 2, 1),
        filled=torch.ones(1, 2, 1, dtype=torch.bool),
        gates=torch.full((1, 4, 2), 0.5),
        asked=torch.tensor([[2, 2]]),
    )


def test_maps_by_hand() -> None:
    maps = RoutingMaps.of(plan(), labels=torch.tensor([2, 0]), num_classes=3).arrays()
    # The image of class 2 has its first token in expert 0, that of class 0 its second in expert 1.
    assert maps["share_by_class"].tolist()[0] == [0, 0.5]
    assert maps["share_by_class"].tolist()[2] == [0.5, 0]
    assert np.isnan(maps["share_by_class"][1]).all()
    assert maps["share_by_position"].tolist() == [[0.5, 0], [0, 0.5]]
    assert maps["dropped_by_position"].tolist() == [0.5, 0.5]
    assert maps["dropped_by_class"].tolist() == pytest.approx([0.5, math.nan, 0.5], nan_ok=True)


def test_batches_add_up() -> None:
    # Two images of class 0 and the two of the batch before: three images of class 0, one of class 2.
    whole = RoutingMaps.of(plan(), torch.tensor([2, 0]), 3) + RoutingMaps.of(plan(), torch.tensor([0, 0]), 3)
    maps = whole.arrays()
    np.testing.assert_allclose(maps["share_by_class"][0], [1 / 6, 2 / 6])
    np.testing.assert_allclose(maps["dropped_by_class"][0], 0.5)
    assert maps["share_by_position"].tolist() == [[0.5, 0], [0, 0.5]]


def test_the_class_and_the_position_that_lose_most() -> None:
    one = SparsePlan(
        token=torch.tensor([[[0], [1]]]),
        weight=torch.ones(1, 2, 1),
        filled=torch.ones(1, 2, 1, dtype=torch.bool),
        gates=torch.full((1, 4, 2), 0.5),
        asked=torch.tensor([[2, 2]]),
    )
    # Both tokens of the first image are served, none of the second.
    metrics = RoutingMaps.of(one, torch.tensor([0, 1]), 5).metrics()
    assert metrics["dropped_worst_class_fraction"] == 1
    assert metrics["dropped_worst_position_fraction"] == 0.5


def test_of_the_experts_that_hold_a_token_the_one_with_its_largest_gate() -> None:
    # Token 0 has both experts and leans to 1; token 1 leans to 1 as well, and has 0 alone; token 2 has none.
    served = SparsePlan(
        token=torch.tensor([[[0, 1], [0, 0]]]),
        weight=torch.ones(1, 2, 2),
        filled=torch.tensor([[[True, True], [True, False]]]),
        gates=torch.tensor([[[0.4, 0.6], [0.3, 0.7], [0.5, 0.5]]]),
        asked=torch.tensor([[2, 1]]),
    )
    assert expert_of(served).tolist() == [[1, 0, -1]]
    # A soft slot holds a part of every token.
    combine = torch.tensor([[[[0.1], [0.9]], [[0.8], [0.2]]]])
    assert expert_of(SoftPlan(torch.full((1, 2, 2, 1), 0.5), combine)).tolist() == [[1, 0]]


def routed(expert: torch.Tensor, labels: torch.Tensor, capacity: int = 100) -> RoutingMaps:
    """Of images whose tokens have these experts of four, in their order."""
    num_images, num_tokens = expert.shape
    order = torch.arange(num_tokens).expand(num_images, -1)
    gates = torch.nn.functional.one_hot(expert, 4).float()
    return RoutingMaps.of(fill_slots(expert[..., None], order, gates, capacity), labels, 5)


def test_information_of_classes_and_positions() -> None:
    labels = torch.arange(40) % 4
    by_class = routed(labels[:, None].expand(-1, 8), labels).metrics()
    assert by_class["class_information"] == pytest.approx(1)
    assert by_class["position_information"] == pytest.approx(0)
    by_position = routed((torch.arange(8) % 4).expand(40, -1), labels).metrics()
    assert by_position["class_information"] == pytest.approx(0, abs=1e-9)
    assert by_position["position_information"] == pytest.approx(1)


@pytest.mark.parametrize("capacity", [2, 8])
def test_information_of_random_routing_is_nothing(capacity: int) -> None:
    found = []
    for _ in range(50):  # tokens of an image are alike
        gates = torch.distributions.Dirichlet(torch.full((30, 4), 0.5)).sample()
        expert = torch.multinomial(gates, 8, replacement=True)
        metrics = routed(expert, torch.randint(5, (30,)), capacity).metrics()
        found.append([metrics["class_information"], metrics["position_information"]])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(50)
    # With two slots an image, what is left for the later tokens depends on the earlier: positions tell.
    assert abs(mean[0]) < 3 * error[0]
    assert capacity == 2 or abs(mean[1]) < 3 * error[1]


@pytest.mark.parametrize("num_images", [1, 6])
def test_what_explains_nothing_is_zero(num_images: int) -> None:
    one_expert = routed(torch.zeros(num_images, 8, dtype=torch.int64), torch.zeros(num_images).long())
    assert one_expert.metrics()["class_information"] == 0
    assert one_expert.metrics()["position_information"] == 0
    one_class = routed(torch.randint(4, (num_images, 8)), torch.zeros(num_images).long())
    assert one_class.metrics()["class_information"] == 0
