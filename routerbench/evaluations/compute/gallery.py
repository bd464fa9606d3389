"""Single images, and what each of their patches won."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from routerbench.data.pixels import as_pictures
from routerbench.evaluate import Batch, predictions
from routerbench.layout import Layout, layouts_seen
from routerbench.load import FinishedRun
from routerbench.moe.surgery import images_routed_together, moe_layers


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
    """Slots of each patch, a mean over the MoE layers whose patches lie on a grid; on the finest of these."""


@torch.no_grad()
def look_at(run: FinishedRun, places: Int64[np.ndarray, "n"]) -> list[Looked]:
    """These images in the mode that the run is in now, each among its batch-mates of the whole set.

    None where no layer's patches lie on a grid: their slots have no place in the image.
    """
    group = images_routed_together(run.model)
    num_images = len(run.test.labels)
    groups = np.unique(places // group)
    among = np.concatenate([np.arange(g * group, min((g + 1) * group, num_images)) for g in groups])
    looked = {one.place: one for one in _looked(run, among)}
    return [looked[place] for place in places.tolist() if place in looked]


def _looked(run: FinishedRun, places: Int64[np.ndarray, "n"]) -> Iterator[Looked]:
    latest: list[Tensor] = []

    def remembered(batches: Iterable[Batch]) -> Iterator[Batch]:
        for images, labels in batches:
            latest[:] = [images]
            yield images, labels

    rest = iter(places.tolist())
    with layouts_seen(run.model) as layouts:
        for logits, labels in predictions(
            run.model, run.batches(places), run.device, run.autocast, remembered
        ):
            pixels = as_pictures(latest[0].float().cpu().numpy(), run.config.data.mean, run.config.data.std)
            taken = slots_taken(run.model, len(labels))
            by_token = by_patch(taken, layouts)
            if by_token is None:
                return
            totals = np.sum([slots.sum(1) for slots in taken.values()], axis=0)
            told = zip(pixels, labels.tolist(), logits.argmax(1).tolist(), totals, by_token, strict=True)
            for image, label, predicted, total, slots in told:
                yield Looked(next(rest), image, label, predicted, float(total), slots)


def slots_taken(model: nn.Module, num_images: int) -> dict[str, Float32[np.ndarray, "B _T"]]:
    """Slots of each token of the latest images that went through the model, by layer."""
    layers = moe_layers(model).items()
    plans = {name: layer.routing.plan for name, layer in layers if layer.routing is not None}
    return {
        name: plan.slots_taken.reshape(num_images, -1).float().cpu().numpy() for name, plan in plans.items()
    }


def by_patch(
    taken: Mapping[str, Float32[np.ndarray, "B _T"]], layouts: Mapping[str, Layout]
) -> Float32[np.ndarray, "B h w"] | None:
    """The mean over layers of what each patch took, on their finest grid; None where none has a grid."""
    grids = [
        slots[:, layouts[name].num_prefix :].reshape(len(slots), *layouts[name].grid)
        for name, slots in taken.items()
        if layouts[name].grid[0] > 1
    ]
    if not grids:
        return None
    rows, columns = (max(grid.shape[axis] for grid in grids) for axis in (1, 2))
    return np.mean([_enlarged(grid, rows, columns) for grid in grids], axis=0)


def _enlarged(
    grid: Float32[np.ndarray, "B h w"], rows: int, columns: int
) -> Float32[np.ndarray, "B rows columns"]:
    """The grid with so many rows and columns, each the nearest that it has."""
    row = np.arange(rows) * grid.shape[1] // rows
    column = np.arange(columns) * grid.shape[2] // columns
    return grid[:, row][:, :, column]
