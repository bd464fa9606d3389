"""Evaluation: exact on a model made by hand, every image and every group once."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from routerbench.build import build_backbone, build_router, sparsify
from routerbench.evaluate import Batch, Evaluation, evaluate, evaluate_ranked
from routerbench.moe.experts import Experts
from routerbench.moe.layer import MoE

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", enabled=False)


class Shown(nn.Module):
    """An image shows the scores of its classes."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Grouped(nn.Module):
    """Three tokens of width 2 an image, whose experts are chosen by position in groups of two images."""

    def __init__(self) -> None:
        super().__init__()
        router = build_router("hash", width=2, num_experts=2, capacity=1)
        self.blocks = nn.Sequential(MoE(router, Experts(2, width=2, hidden=4), group=2))

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images.flatten(1).unflatten(1, (3, 2))).sum(1)


def batches(images: Tensor, labels: Tensor, sizes: list[int]) -> Iterator[Batch]:
    return iter(zip(images.split(sizes), labels.split(sizes), strict=True))


@pytest.mark.parametrize("sizes", [[5], [2, 2, 1], [1, 4]])
def test_exact_on_a_model_made_by_hand(sizes: list[int]) -> None:
    scores = torch.tensor(
        [
            [7.0, 0, 0, 0, 0, 0],
            [0.0, 7, 0, 0, 0, 0],
            [0.0, 7, 0, 0, 0, 0],
            [0.0, 1, 2, 3, 4, 5],
            [0.0, 1, 2, 3, 4, 5],
        ]
    )
    labels = torch.tensor([0, 1, 0, 5, 0])
    found = evaluate(Shown(), batches(scores.view(5, 3, 1, 2), labels, sizes), CPU, FP32)
    assert found.correct.dtype == np.bool_
    assert found.correct.tolist() == [True, True, False, True, False]
    assert found.metrics == {
        "test/top1": 0.6,
        "test/top5": 0.8,  # the last image's class comes sixth
        "test/balanced": pytest.approx((1 / 3 + 1 + 1) / 3),  # classes 0, 1 and 5
        "test/loss": pytest.approx(nn.functional.cross_entropy(scores, labels).item()),
    }


@pytest.mark.parametrize("sizes", [[4, 3], [2, 2, 2, 1], [6, 1]])
def test_groups_and_what_is_left_of_them_count_once(sizes: list[int]) -> None:
    images, labels = torch.randn(7, 3, 1, 2), torch.zeros(7, dtype=torch.int64)
    metrics = evaluate(Grouped(), batches(images, labels, sizes), CPU, FP32).metrics
    # Three groups of two images have 6 tokens, the last image 3; each group seats one token an expert.
    assert metrics["routing/dropped_fraction"] == pytest.approx((3 * 4 + 1) / 21)
    assert metrics["routing/load_cv"] == 0.0
    # Positions 0 to 5 ask for experts 0, 1, 0, 1, 0, 1, positions 0 to 2 for 0, 1, 0: 11 to 10 in all.
    assert metrics["routing/demand_cv"] == pytest.approx(0.5 / 10.5)


def test_a_smaller_batch_is_routed_in_the_groups_of_a_large_one() -> None:
    model, images = Grouped(), torch.randn(7, 3, 1, 2)
    labels = torch.zeros(7, dtype=torch.int64)
    found = [evaluate(model, batches(images, labels, sizes), CPU, FP32) for sizes in ([7], [2, 2, 2, 1])]
    assert found[0].metrics == pytest.approx(found[1].metrics)
    assert found[0].correct.tolist() == found[1].correct.tolist()


def test_evaluation_is_without_noise_and_leaves_the_model_as_it_was() -> None:
    model = sparsify(
        build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2), "token_choice", 4, [1]
    )
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (evaluate(model, batches(images, labels, [2, 2]), CPU, FP32) for _ in range(2))
    assert first.metrics == second.metrics
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_routing_is_told_by_layer_and_for_all() -> None:
    model = sparsify(
        build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2), "expert_choice", 4, [0, 1]
    )
    data = batches(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), [2])
    metrics = evaluate(model, data, CPU, FP32).metrics
    for name in ("load_cv", "demand_cv", "dropped_fraction", "entropy"):
        layers = [metrics[f"routing/blocks.{block}/{name}"] for block in (0, 1)]
        assert metrics[f"routing/{name}"] == pytest.approx(np.mean(layers))


def test_autocast_casts_every_weight_once_for_all_batches(cast_weights: Any) -> None:
    model = sparsify(
        build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2), "token_choice", 4, [1]
    )
    data = batches(torch.randn(6, 3, 32, 32), torch.arange(6), [2, 2, 2])
    with cast_weights(model) as counter:
        evaluate(model, data, CPU, torch.autocast("cpu", torch.bfloat16))
    assert {"blocks.0.mlp.fc1.weight", "blocks.1.mlp.experts.w1", "head.weight"} <= counter.casts.keys()
    assert set(counter.casts.values()) == {1}


def test_weights_that_have_changed_are_cast_anew() -> None:
    model = build_backbone("pocket_vit", 10, 32, depth=1, embed_dim=16, num_heads=2)
    images, labels, bf16 = torch.randn(2, 3, 32, 32), torch.arange(2), torch.autocast("cpu", torch.bfloat16)
    losses = []
    for _ in range(2):
        losses.append(evaluate(model, batches(images, labels, [2]), CPU, bf16).metrics["test/loss"])
        with torch.no_grad():
            model.get_parameter("head.bias").add_(torch.arange(10.0))
    assert losses[0] != losses[1]


def test_the_other_weights_stand_beside_the_ranked_ones() -> None:
    def found(model: nn.Module) -> Evaluation:
        size = float(sum(parameter.numel() for parameter in model.parameters()))
        return Evaluation({"test/top1": size, "routing/entropy": size}, np.array([size > 3]), {})

    models = {"raw": nn.Linear(1, 1), "ema": nn.Linear(2, 2)}
    ranked = evaluate_ranked(found, models, "ema")
    assert ranked.metrics == {"test/top1": 6.0, "routing/entropy": 6.0, "raw/test/top1": 2.0}
    assert ranked.correct.tolist() == [True]
    assert evaluate_ranked(found, models, "raw").metrics == {
        "test/top1": 2.0,
        "routing/entropy": 2.0,
        "ema/test/top1": 6.0,
    }
    assert evaluate_ranked(found, {"raw": models["raw"]}, "raw") == found(models["raw"])
