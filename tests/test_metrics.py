"""Metrics, worked by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from routerbench.build import build_router
from routerbench.config import conf_dir
from routerbench.maps import RoutingMaps
from routerbench.metrics import Metrics, RoutingSums, classification_metrics, routing_metrics
from routerbench.moe.experts import Experts
from routerbench.moe.layer import MoE
from routerbench.moe.plan import Plan, SoftPlan, SparsePlan
from routerbench.moe.router import Routing

ROUTERS = sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml") if path.stem != "dense")
METRICS = (
    "load_cv",
    "load_max_over_mean",
    "dead_expert_fraction",
    "demand_cv",
    "demand_max_over_mean",
    "entropy",
    "margin",
    "confidence",
    "dropped_fraction",
    "first_choice_fraction",
    "served_by_1_fraction",
    "served_by_2_fraction",
    "served_by_4_fraction",
    "slot_entropy",
    "token_share",
    "slot_similarity",
    "dropped_worst_class_fraction",
    "dropped_worst_position_fraction",
    "class_information",
    "position_information",
)


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


def metrics_of(plan: Plan, measures: dict[str, torch.Tensor] | None = None) -> Metrics:
    return RoutingSums.of(Routing(plan, {}, measures or {})).metrics()


def test_routing_by_hand(plan: SparsePlan) -> None:
    # The load is even; of demands 2 and 1 the mean is 1.5 and the deviation 0.5. Of two experts, the gates of
    # tokens 1 and 2 are as uncertain as can be, those of token 0 are certain. Tokens 1 and 2 lean to both
    # experts, of which the lower counts as the first choice: it serves token 0 alone.
    assert metrics_of(plan) == pytest.approx(
        {
            "load_cv": 0.0,
            "load_max_over_mean": 1.0,
            "dead_expert_fraction": 0.0,
            "demand_cv": 1 / 3,
            "demand_max_over_mean": 4 / 3,
            "entropy": 2 / 3,
            "margin": 1 / 3,
            "confidence": 2 / 3,
            "dropped_fraction": 1 / 3,
            "first_choice_fraction": 1 / 3,
            "served_by_1_fraction": 2 / 3,
            "served_by_2_fraction": 0.0,
            "served_by_4_fraction": 0.0,
            "slot_entropy": 0.0,
            "token_share": 1.0,
            "slot_similarity": 0.0,
        }
    )


def test_sums_weigh_every_token_alike(plan: SparsePlan) -> None:
    alone = SparsePlan(
        token=torch.zeros(1, 2, 1, dtype=torch.int64),
        weight=torch.zeros(1, 2, 1),
        filled=torch.tensor([[[True], [False]]]),
        gates=torch.tensor([[[1.0, 0.0]]]),
        asked=torch.tensor([[1, 0]]),
    )
    together = (RoutingSums.of(Routing(plan, {})) + RoutingSums.of(Routing(alone, {}))).metrics()
    # Loads 1 + 1 and 1 + 0, demands 2 + 1 and 1 + 0; one of four tokens is dropped.
    assert together["load_cv"] == pytest.approx(1 / 3)
    assert together["demand_cv"] == pytest.approx(0.5)
    assert together["dropped_fraction"] == pytest.approx(0.25)
    assert together["entropy"] == pytest.approx(0.5)
    assert metrics_of(alone)["dead_expert_fraction"] == 0.5
    assert metrics_of(alone)["load_max_over_mean"] == 2


def test_soft_fills_every_slot_and_drops_nobody() -> None:
    weight = torch.full((1, 4, 2, 1), 0.25)
    assert metrics_of(SoftPlan(weight, 2 * weight)) == pytest.approx(
        {
            "load_cv": 0.0,
            "load_max_over_mean": 1.0,
            "dead_expert_fraction": 0.0,
            "demand_cv": 0.0,
            "demand_max_over_mean": 1.0,
            "entropy": 1.0,
            "margin": 0.0,
            "confidence": 0.5,
            "dropped_fraction": 0.0,
            "first_choice_fraction": 1.0,
            "served_by_1_fraction": 1.0,
            "served_by_2_fraction": 1.0,
            "served_by_4_fraction": 0.0,
            "slot_entropy": 1.0,
            "token_share": 0.25,
            "slot_similarity": 1.0,
        }
    )


def test_soft_is_served_where_it_has_an_even_share() -> None:
    # The slot of expert 0 is all of token 0, that of expert 1 is even: token 1 has no even share of expert 0.
    dispatch = torch.tensor([[[[1.0], [0.5]], [[0.0], [0.5]]]])
    metrics = metrics_of(SoftPlan(dispatch, torch.full((1, 2, 2, 1), 0.5)))
    assert (metrics["served_by_1_fraction"], metrics["served_by_2_fraction"]) == (1.0, 0.5)
    # Both lean to both experts, the lower counts, and has nothing of token 1.
    assert metrics["first_choice_fraction"] == 0.5
    assert metrics["dropped_fraction"] == 0


def test_one_expert_has_no_entropy() -> None:
    one = torch.ones(1, 2, 1, 1)
    metrics = metrics_of(SoftPlan(one / 2, one))
    assert (metrics["entropy"], metrics["margin"], metrics["confidence"]) == (0.0, 1.0, 1.0)


def test_what_a_method_measures_is_averaged_over_groups(plan: SparsePlan) -> None:
    sums = RoutingSums.of(Routing(plan, {}, {"row_residual": torch.tensor(0.25)}))
    two = RoutingSums.of(Routing(plan, {}, {"row_residual": torch.tensor(0.75)}))
    assert (sums + two).metrics()["row_residual"] == 0.5


def test_layers_are_told_apart_and_averaged() -> None:
    metrics = routing_metrics({"blocks.1": {"entropy": 0.25}, "blocks.3": {"entropy": 0.75}})
    assert metrics == {
        "routing/entropy": 0.5,
        "routing/blocks.1/entropy": 0.25,
        "routing/blocks.3/entropy": 0.75,
    }
    assert routing_metrics({}) == {}


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_has_the_same_bounded_set(router: str) -> None:
    layer = MoE(build_router(router, 8, 4), Experts(4, 8, 8))
    layer(torch.randn(6, 12, 8))
    assert layer.routing is not None
    metrics = (
        RoutingSums.of(layer.routing).metrics()
        | RoutingMaps.of(layer.routing.plan, torch.tensor([0, 1, 2] * 2), 4).metrics()
    )
    measures = set(layer.routing.measures)
    assert set(metrics) - measures == set(METRICS)
    assert len(metrics) <= 22
    for name, value in metrics.items():
        assert math.isfinite(value), name
        assert value >= 0 or name.endswith("_information"), name
        assert value <= 1 + 1e-6 or name.endswith(("_cv", "_over_mean", "_residual")), name
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    assert all(f"`{name}`" in page for name in metrics)


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
