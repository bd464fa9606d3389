"""The losses of the task by hand, and against timm's."""

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor

from routerbench.step import TaskLoss
from routerbench.task_loss import make_task_loss


def loss_of(name: str, **changes: Any) -> TaskLoss:
    return make_task_loss(name, **{"label_smoothing": 0.0, "target_threshold": None, **changes})


def scores() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and soft targets of six images and four classes."""
    return torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.rand(6, 4).softmax(-1)


def test_softmax_is_cross_entropy_to_the_last_bit() -> None:
    logits, labels, soft = scores()
    assert torch.equal(loss_of("softmax")(logits, labels), F.cross_entropy(logits, labels))
    torch.testing.assert_close(loss_of("softmax")(logits, soft), SoftTargetCrossEntropy()(logits, soft))
    smooth = loss_of("softmax", label_smoothing=0.1)
    torch.testing.assert_close(smooth(logits, labels), LabelSmoothingCrossEntropy(0.1)(logits, labels))


def test_sigmoid_sums_over_classes_and_its_mean_averages() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    labels = torch.tensor([0, 1])
    # A score of 0 costs log 2; that of log 3 says 3/4 where 0 is right, which costs log 4.
    expected = (2 * math.log(2) + math.log(4) + math.log(2)) / 2
    assert loss_of("sigmoid")(logits, labels).item() == pytest.approx(expected)
    assert loss_of("sigmoid_mean")(logits, labels).item() == pytest.approx(expected / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_mean"])
def test_sigmoid_is_the_binary_cross_entropy_of_timm(name: str, smoothing: float) -> None:
    logits, labels, soft = scores()
    timms = BinaryCrossEntropy(smoothing, sum_classes=name == "sigmoid")
    found = loss_of(name, label_smoothing=smoothing)
    torch.testing.assert_close(found(logits, labels), timms(logits, labels))
    torch.testing.assert_close(found(logits, soft), timms(logits, (1 - smoothing) * soft + smoothing / 4))


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sigmoid_mean"])
def test_smoothing_is_the_same_for_classes_and_their_targets(name: str) -> None:
    logits, labels, _ = scores()
    loss = loss_of(name, label_smoothing=0.2)
    torch.testing.assert_close(loss(logits, labels), loss(logits, F.one_hot(labels, 4).float()))


def test_a_threshold_makes_every_class_of_a_mixed_image_its_own() -> None:
    logits = torch.randn(1, 3)
    loss = loss_of("sigmoid_mean", target_threshold=0.0)
    expected = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 0.0, 1.0]]))
    torch.testing.assert_close(loss(logits, torch.tensor([[0.9, 0.0, 0.1]])), expected)


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        (
            "sigmoit",
            {},
            "loss.name=sigmoit is not one of: softmax, sigmoid, sigmoid_mean (did you mean sigmoid?)",
        ),
        ("softmax", {"label_smoothing": 1.0}, "loss.label_smoothing=1.0 must be a number below 1"),
        ("softmax", {"label_smoothing": -0.1}, "loss.label_smoothing=-0.1 must be a number of at least 0"),
        ("sigmoid", {"target_threshold": -1.0}, "loss.target_threshold=-1.0 must be a number of at least 0"),
        (
            "sigmoid",
            {"target_threshold": 0.2, "label_smoothing": 0.1},
            "loss.target_threshold=0.2 goes with neither loss.name=softmax nor label smoothing: say null, or "
            "change loss.name=sigmoid and loss.label_smoothing=0.1",
        ),
        (
            "softmax",
            {"target_threshold": 0.2},
            "loss.target_threshold=0.2 goes with neither loss.name=softmax nor label smoothing: say null, or "
            "change loss.name=softmax and loss.label_smoothing=0.0",
        ),
    ],
)
def test_what_is_no_loss_is_refused(name: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        loss_of(name, **changes)
