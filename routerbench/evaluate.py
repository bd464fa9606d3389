"""Evaluation: a model over a whole test set."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.metrics import Metrics, RoutingSums, classification_metrics, routing_metrics
from routerbench.moe.surgery import moe_layers

Batch = tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: Metrics
    correct: NDArray[np.bool_]
    """For each test image, in order, whether its class was predicted."""


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[Batch], device: torch.device, autocast: torch.autocast
) -> Evaluation:
    """Accuracy, loss and routing over every image of `batches`, at the capacity of training."""
    training = model.training
    model.eval()
    layers = moe_layers(model)
    images_per_group = max((layer.images_per_group for layer in layers.values()), default=1)
    sums: dict[str, RoutingSums] = {}
    logits, labels = [], []
    for images, label in _in_whole_groups(batches, images_per_group):
        with autocast:
            logits.append(model(images.to(device, non_blocking=True)))
        labels.append(label)
        for name, layer in layers.items():
            assert layer.routing is not None
            of_batch = RoutingSums.of(layer.routing.plan)
            sums[name] = sums[name] + of_batch if name in sums else of_batch
    model.train(training)
    metrics, correct = classification_metrics(torch.cat(logits), torch.cat(labels).to(device))
    test = {f"test/{name}": value for name, value in metrics.items()}
    return Evaluation(test | routing_metrics(sums), correct.cpu().numpy())


def _in_whole_groups(batches: Iterable[Batch], images_per_group: int) -> Iterator[Batch]:
    """The batches, with what is left of the last group as a batch of its own, so that its routing is seen."""
    for images, labels in batches:
        whole = len(images) - len(images) % images_per_group
        for part in (slice(0, whole), slice(whole, None)):
            if len(images[part]):
                yield images[part], labels[part]
