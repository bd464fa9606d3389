"""The loss of the task: cross-entropy of softmax or sigmoid scores, against classes or soft targets."""

from functools import partial

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from routerbench.config import check_loss
from routerbench.step import TaskLoss


def make_task_loss(name: str, *, label_smoothing: float, target_threshold: float | None) -> TaskLoss:
    """The loss of this name, averaged over images; raises ValueError for what is unknown or impossible.

    `softmax`: cross-entropy. `sigmoid`: binary cross-entropy of every class, summed over classes (V-MoE);
    `sigmoid_mean`: averaged over them (timm, DeiT III). Label smoothing gives every class an even share of
    `label_smoothing`, whatever the targets; sigmoid targets above `target_threshold` count as 1, others as 0.
    """
    check_loss(name, label_smoothing, target_threshold)
    if target_threshold is None:
        if name == "softmax":
            return partial(F.cross_entropy, label_smoothing=label_smoothing)
        return partial(sigmoid_loss, label_smoothing=label_smoothing, mean=name == "sigmoid_mean")
    return partial(sigmoid_loss, target_threshold=target_threshold, mean=name == "sigmoid_mean")


def sigmoid_loss(
    logits: Float[Tensor, "B classes"],
    targets: Int[Tensor, "B"] | Float[Tensor, "B classes"],
    *,
    mean: bool,
    label_smoothing: float = 0.0,
    target_threshold: float | None = None,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of every class, summed (or averaged: `mean`) over classes, mean over images."""
    num_classes = logits.shape[1]
    if targets.dim() == 1:
        targets = F.one_hot(targets, num_classes).to(logits.dtype)
    if target_threshold is not None:
        targets = (targets > target_threshold).to(logits.dtype)
    targets = (1 - label_smoothing) * targets + label_smoothing / num_classes
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return loss / (len(logits) * (num_classes if mean else 1))
