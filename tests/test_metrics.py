"""Metrics, worked by hand."""

import math

import numpy as np
import pytest
import torch

from routerbench.metrics import RoutingSums, classification_metrics, routing_metrics
from routerbench.moe.plan import SoftPlan, SparsePlan


@pytest.fixture
def plan() -> SparsePlan:
    """Tokens 0 and 1 ask for expert 0, which has one slot, token 2 for expert 1: token 1 is dropped."""
    gates = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]])
    return SparsePlan(
        token=torch.tensor([[[0], [2]]]),
        weight=torch.tensor([[[1.0], [0.5]]]),
        filled=torch.tensor([[[True], [True]]]),
        gates=gates,
        asked=torch.tensor([[2, 1]]),
    )


def test_routing_by_hand(plan: SparsePlan) -> None:
    sums = RoutingSums.of(plan)
    assert (sums.load.tolist(), sums.demand.tolist(), sums.tokens) == ([1, 1], [2, 1], 3)
    # The load is even; of demands 2 and 1 the mean is 1.5 and the deviation 0.5. Of two experts, the gates of
    # tokens 1 and 2 are as uncertain as can be, those of token 0 are certain.
    assert sums.metrics() == pytest.approx(
        {"load_cv": 0.0, "demand_cv": 1 / 3, "dropped_fraction": 1 / 3, "entropy": 2 / 3}
    )


def test_sums_weigh_every_token_alike(plan: SparsePlan) -> None:
    nobody = SparsePlan(
        token=torch.zeros(1, 2, 1, dtype=torch.int64),
        weight=torch.zeros(1, 2, 1),
        filled=torch.tensor([[[True], [False]]]),
        gates=torch.tensor([[[1.0, 0.0]]]),
        asked=torch.tensor([[1, 0]]),
    )
    together = RoutingSums.of(plan) + RoutingSums.of(nobody)
    # Loads 1 + 1 and 1 + 0, demands 2 + 1 and 1 + 0; one of four tokens is dropped.
    assert together.metrics() == pytest.approx(
        {"load_cv": 1 / 3, "demand_cv": 0.5, "dropped_fraction": 0.25, "entropy": 0.5}
    )


def test_soft_fills_every_slot_and_drops_nobody() -> None:
    weight = torch.full((1, 4, 2, 1), 0.25)
    metrics = RoutingSums.of(SoftPlan(weight, 2 * weight)).metrics()
    assert metrics == pytest.approx(
        {"load_cv": 0.0, "demand_cv": 0.0, "dropped_fraction": 0.0, "entropy": 1.0}
    )


def test_one_expert_has_no_entropy() -> None:
    one = torch.ones(1, 2, 1, 1)
    assert RoutingSums.of(SoftPlan(one / 2, one)).metrics()["entropy"] == 0.0


def test_layers_are_told_apart_and_averaged(plan: SparsePlan) -> None:
    sums = RoutingSums.of(plan)
    metrics = routing_metrics({"blocks.1": sums, "blocks.3": sums + sums})
    assert metrics["routing/dropped_fraction"] == pytest.approx(1 / 3)
    names = ("load_cv", "demand_cv", "dropped_fraction", "entropy")
    places = ("routing", "routing/blocks.1", "routing/blocks.3")
    assert set(metrics) == {f"{place}/{name}" for place in places for name in names}
    assert routing_metrics({}) == {}


def test_accuracies_by_hand() -> None:
    # Six classes; the true class is first, second, fifth, sixth in the order of the scores.
    scores = torch.tensor(
        [
            [9.0, 1, 2, 3, 4, 5],  # class 0: right
            [8.0, 9, 0, 0, 0, 0],  # class 0: second
            [5.0, 4, 3, 2, 1, 0],  # class 4: fifth
            [5.0, 4, 3, 2, 1, 0],  # class 5: sixth
        ]
    )
    labels = torch.tensor([0, 0, 4, 5])
    metrics, correct = classification_metrics(scores, labels)
    assert correct.tolist() == [True, False, False, False]
    assert (metrics["top1"], metrics["top5"]) == (0.25, 0.75)
    assert metrics["balanced"] == pytest.approx((0.5 + 0 + 0) / 3)  # classes 0, 4 and 5 occur
    logs = [
        math.log(sum(math.exp(s) for s in row)) - row[label]
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    assert metrics["loss"] == pytest.approx(np.mean(logs), rel=1e-6)


def test_of_equal_scores_the_lower_class_is_predicted() -> None:
    _, correct = classification_metrics(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    assert correct.tolist() == [True, False, False]


def test_scores_that_are_no_numbers_are_never_right() -> None:
    metrics, correct = classification_metrics(torch.full((2, 6), math.nan), torch.tensor([0, 5]))
    assert correct.tolist() == [False, False]
    assert (metrics["top1"], metrics["top5"], metrics["balanced"]) == (0.0, 0.0, 0.0)


def test_the_loss_is_taken_in_single_precision() -> None:
    scores = torch.tensor([[100.0, 0.0], [0.0, 100.0]], dtype=torch.float16)
    metrics, _ = classification_metrics(scores, torch.tensor([1, 1]))
    assert metrics["loss"] == pytest.approx(50.0)
