"""Single images, and what each of their patches won."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from routerbench.evaluate import Batch, predictions
from routerbench.load import FinishedRun
from routerbench.moe.surgery import moe_layers


@dataclass(frozen=True)
class Looked:
    """One image of the test set."""

    place: int
    image: Float32[np.ndarray, "H W 3"]
    """In [0, 1], as the model gets it before it is normalised."""
    label: int
    predicted: int
    slots: float
    """Of all its tokens, in all MoE layers."""
    by_token: Float32[np.ndarray, "h w"]
    """Slots of each patch, a mean over the MoE layers; on the grid of the layer that has most patches."""


@torch.no_grad()
def look_at(run: FinishedRun, places: Int64[np.ndarray, "n"]) -> list[Looked]:
    """These images in the mode that the run is in now, each among its batch-mates of the whole set."""
    group = max((layer.images_per_group for layer in moe_layers(run.model).values()), default=1)
    num_images = len(run.test.labels)
    groups = np.unique(places // group)
    among = np.concatenate([np.arange(g * group, min((g + 1) * group, num_images)) for g in groups])
    looked = {one.place: one for one in _looked(run, among)}
    return [looked[place] for place in places.tolist()]


def _looked(run: FinishedRun, places: Int64[np.ndarray, "n"]) -> Iterator[Looked]:
    latest: list[Tensor] = []

    def remembered(batches: Iterable[Batch]) -> Iterator[Batch]:
        for images, labels in batches:
            latest[:] = [images]
            yield images, labels

    mean, std = (np.asarray(run.config.data[name], np.float32) for name in ("mean", "std"))
    rest = iter(places.tolist())
    for logits, labels in predictions(run.model, run.batches(places), run.device, run.autocast, remembered):
        pixels = latest[0].permute(0, 2, 3, 1).float().cpu().numpy() * std + mean
        totals, by_token = _slots(run, len(labels))
        told = zip(pixels, labels.tolist(), logits.argmax(1).tolist(), totals, by_token, strict=True)
        for image, label, predicted, total, slots in told:
            yield Looked(next(rest), image.clip(0, 1), label, predicted, float(total), slots)


def _slots(
    run: FinishedRun, num_images: int
) -> tuple[Float32[np.ndarray, "B"], Float32[np.ndarray, "B side side"]]:
    """Slots of each image in all layers, and by patch the mean over layers."""
    prefix = int(getattr(run.model, "num_prefix_tokens", 0))  # class token and registers, of transformers
    layers = [layer.routing.plan for layer in moe_layers(run.model).values() if layer.routing is not None]
    taken = [plan.slots_taken.reshape(num_images, -1).float().cpu().numpy() for plan in layers]
    grids = [_grid(of_layer, prefix) for of_layer in taken]
    side = max(grid.shape[1] for grid in grids)
    total = np.sum([of_layer.sum(1) for of_layer in taken], axis=0)
    return total, np.mean([_enlarged(grid, side) for grid in grids], axis=0)


def _grid(slots: Float32[np.ndarray, "B T"], prefix: int) -> Float32[np.ndarray, "B h w"]:
    """The tokens of patches, which are a square, as images are."""
    patches = slots[:, prefix:]
    side = math.isqrt(patches.shape[1])
    assert side * side == patches.shape[1], patches.shape
    return patches.reshape(len(patches), side, side)


def _enlarged(grid: Float32[np.ndarray, "B h w"], side: int) -> Float32[np.ndarray, "B side side"]:
    """The grid with so many rows and columns, each the nearest that it has."""
    nearest = np.arange(side) * grid.shape[1] // side
    return grid[:, nearest][:, :, nearest]
