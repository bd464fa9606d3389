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
from routerbench.moe.surgery import images_routed_together, moe_layers
from routerbench.ranks import added, gathered, num_ranks

Batch = tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]
Watched = Callable[[Iterable[Batch]], Iterable[Batch]]
NOTHING: Batch = (torch.empty(0, 0, 0, 0), torch.empty(0, dtype=torch.int64))


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
    watched: Watched = iter,
) -> Evaluation:
    """Accuracy, loss and routing over every image of `batches`, at the capacity of evaluation.

    What is to be done between two forward passes, `watched` does as it passes the batches on.
    With many processes each has batches of its own, as many as it likes, and all find the same: that of all
    images, in the order of the ranks.
    """
    layers = moe_layers(model)
    sums: dict[str, RoutingSums] = {}
    maps: dict[str, RoutingMaps] = {}
    seen = []
    for logits, labels in predictions(model, batches, device, autocast, watched):
        seen.append((logits, labels))
        for name, layer in layers.items():
            assert layer.routing is not None
            _add(sums, name, RoutingSums.of(layer.routing))
            _add(maps, name, RoutingMaps.of(layer.routing.plan, labels, logits.shape[1]))
    sums, maps = added(sums), added(maps)
    metrics, correct = classification_metrics(*_of_all_ranks(seen), task_loss)
    test = {f"test/{name}": value for name, value in metrics.items()}
    routing = routing_metrics({name: sums[name].metrics() | maps[name].metrics() for name in layers})
    arrays = {f"{name}/{map_}": array for name in maps for map_, array in maps[name].arrays().items()}
    return Evaluation(test | routing, correct.cpu().numpy(), arrays)


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: torch.autocast,
    watched: Watched = iter,
) -> tuple[Float[Tensor, "N classes"], Int[Tensor, "N"]]:
    """The logits of every image of `batches`, of all ranks in their order, and the labels."""
    return _of_all_ranks(list(predictions(model, batches, device, autocast, watched)))


def predictions(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: torch.autocast,
    watched: Watched,
) -> Iterator[tuple[Float[Tensor, "B classes"], Int[Tensor, "B"]]]:
    """The logits and labels of this rank, batch by batch, each while its routing is still in the layers."""
    training = model.training
    model.eval()
    images_per_group = images_routed_together(model)
    with weights_cast_once(device):
        own = in_step(in_whole_groups(batches, images_per_group), images_per_group)
        for images, labels in watched(own):
            with autocast:
                logits = model(images.to(device, non_blocking=True))
            if len(labels):  # otherwise this rank has come along for the others
                yield logits, labels.to(device, non_blocking=True)
    model.train(training)


def _of_all_ranks(
    predictions: list[tuple[Tensor, Tensor]],
) -> tuple[Float[Tensor, "N classes"], Int[Tensor, "N"]]:
    every = [prediction for of_rank in gathered(predictions) for prediction in of_rank]
    logits, labels = zip(*every, strict=True)
    return torch.cat(logits), torch.cat(labels)


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


def in_step(batches: Iterable[Batch], images_per_group: int) -> Iterator[Batch]:
    """The batches of this rank, cut so that all ranks have as many, and at the same time of the same size.

    So a forward pass may wait for the other ranks. A rank that has not that many images left gets black ones,
    which have no labels. Groups stay whole.
    """
    if num_ranks() == 1:
        yield from batches
        return
    own = iter(batches)
    images, labels = next(own, NOTHING)
    while shapes := [shape for shape in gathered(tuple(images.shape)) if shape[0]]:
        whole = [shape[0] for shape in shapes if shape[0] >= images_per_group]
        size = min(whole) if whole else max(shape[0] for shape in shapes)
        if len(images) < size:
            yield images.new_zeros(size, *shapes[0][1:]), labels[:0]
            continue
        yield images[:size], labels[:size]
        images, labels = images[size:], labels[size:]
        if not len(images):
            images, labels = next(own, NOTHING)


def weights_cast_once(device: torch.device) -> torch.autocast:
    """Inside, autocast keeps its low-precision copy of a weight from one `with autocast` to the next.

    It drops its copies at the end of the outermost block of autocast, enabled or not.
    """
    return torch.autocast(device.type, enabled=False)


def _add(totals: dict[str, Any], name: str, value: Any) -> None:
    totals[name] = totals[name] + value if name in totals else value


def in_whole_groups(batches: Iterable[Batch], images_per_group: int) -> Iterator[Batch]:
    """The batches, with what is left of the last group as a batch of its own, so that its routing is seen."""
    for images, labels in batches:
        whole = len(images) - len(images) % images_per_group
        for part in (slice(0, whole), slice(whole, None)):
            if len(images[part]):
                yield images[part], labels[part]
