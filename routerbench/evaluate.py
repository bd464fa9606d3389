"""Evaluation: a model over a whole test set."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.maps import RoutingMaps
from routerbench.metrics import Metrics, RoutingSums, classification_metrics, routing_metrics
from routerbench.moe.surgery import moe_layers

Batch = tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: Metrics
    correct: NDArray[np.bool_]
    """For each test image, in order, whether its class was predicted."""
    maps: dict[str, NDArray[np.float32]]
    """`<block>/<map>`: the maps of each MoE layer, see `routerbench.maps`."""


@torch.no_grad()  # in inference mode autocast keeps no copies of weights
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: torch.autocast,
    task_loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Evaluation:
    """Accuracy, loss and routing over every image of `batches`, at the capacity of evaluation."""
    training = model.training
    model.eval()
    layers = moe_layers(model)
    images_per_group = max((layer.images_per_group for layer in layers.values()), default=1)
    sums: dict[str, RoutingSums] = {}
    maps: dict[str, RoutingMaps] = {}
    logits, labels = [], []
    with weights_cast_once(device):
        for images, label in _in_whole_groups(batches, images_per_group):
            with autocast:
                logits.append(model(images.to(device, non_blocking=True)))
            labels.append(label.to(device, non_blocking=True))
            for name, layer in layers.items():
                assert layer.routing is not None
                _add(sums, name, RoutingSums.of(layer.routing))
                _add(maps, name, RoutingMaps.of(layer.routing.plan, labels[-1], logits[-1].shape[1]))
    model.train(training)
    metrics, correct = classification_metrics(torch.cat(logits), torch.cat(labels), task_loss)
    test = {f"test/{name}": value for name, value in metrics.items()}
    routing = routing_metrics({name: sums[name].metrics() | maps[name].metrics() for name in layers})
    arrays = {f"{name}/{map_}": array for name in maps for map_, array in maps[name].arrays().items()}
    return Evaluation(test | routing, correct.cpu().numpy(), arrays)


def evaluate_ranked(
    evaluate_model: Callable[[nn.Module], Evaluation], models: Mapping[str, nn.Module], ranked: str
) -> Evaluation:
    """The evaluation of the model `ranked`, and beside it as `<name>/test/...` the metrics of the others."""
    evaluations = {name: evaluate_model(model) for name, model in models.items()}
    beside = {
        f"{name}/{metric}": value
        for name, evaluation in evaluations.items()
        for metric, value in evaluation.metrics.items()
        if name != ranked and metric.startswith("test/")
    }
    return replace(evaluations[ranked], metrics=evaluations[ranked].metrics | beside)


def weights_cast_once(device: torch.device) -> torch.autocast:
    """Inside, autocast keeps its low-precision copy of a weight from one `with autocast` to the next.

    It drops its copies at the end of the outermost block of autocast, enabled or not.
    """
    return torch.autocast(device.type, enabled=False)


def _add(totals: dict[str, Any], name: str, value: Any) -> None:
    totals[name] = totals[name] + value if name in totals else value


def _in_whole_groups(batches: Iterable[Batch], images_per_group: int) -> Iterator[Batch]:
    """The batches, with what is left of the last group as a batch of its own, so that its routing is seen."""
    for images, labels in batches:
        whole = len(images) - len(images) % images_per_group
        for part in (slice(0, whole), slice(whole, None)):
            if len(images[part]):
                yield images[part], labels[part]
