"""Maps of an evaluation, worked by hand."""

import math

import numpy as np
import pytest
import torch

from routerbench.maps import RoutingMaps
from routerbench.moe.plan import SparsePlan


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
    assert metrics == {"dropped_worst_class_fraction": 1.0, "dropped_worst_position_fraction": 0.5}
