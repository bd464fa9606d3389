"""What was seen of a run, kept in its folder so that pictures need no further pass."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from routerbench.arrays import UNREADABLE, open_arrays, read_array
from routerbench.inspection.routing_of import LayerRouting, routing_of
from routerbench.inspection.seeing.seen import LayerSeen, Seen
from routerbench.load import FinishedRun
from routerbench.records import make_folder, replaced

FILE = "seen.npz"


@dataclass(frozen=True)
class Expected:
    """What a run says of what is kept of it; the file may come from a stranger and be of any size."""

    labels: Int64[np.ndarray, "N"]
    class_names: tuple[str, ...]
    layers: Mapping[str, LayerRouting]
    """How a single image is routed, in the order of the forward pass."""


def expected_of(run: FinishedRun) -> Expected:
    """As its test set and its model are now."""
    ((images, _),) = run.batches(np.zeros(1, dtype=np.int64))
    return Expected(run.test.labels, run.test.class_names, routing_of(run.model, images))


def keep(folder: Path, seen: Seen, run: str) -> None:
    """Write the arrays; `run` says of which training they are. Raises UnwritableError."""
    arrays: dict[str, Any] = {"run": run, "labels": seen.labels, "predicted": seen.predicted}
    for number, layer in enumerate(seen.layers):
        values = {field.name: getattr(layer, field.name) for field in fields(LayerSeen)}
        arrays |= {f"{number}/{name}": one for name, one in values.items() if isinstance(one, np.ndarray)}
    make_folder(folder)
    with replaced(folder / FILE) as path, path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_kept(folder: Path, run: str, expected: Expected) -> Seen | None:
    """What was kept; None where it is nothing, damaged, of another training or does not fit the run."""
    try:
        with open_arrays(folder / FILE) as file:
            if str(read_array(file, "run", (), "U")) != run:
                return None
            shape = expected.labels.shape
            labels, predicted = (read_array(file, name, shape, "i") for name in ("labels", "predicted"))
            layers = tuple(
                _layer(file, number, name, len(labels), one)
                for number, (name, one) in enumerate(expected.layers.items())
            )
    except UNREADABLE:
        return None
    fits = _within(predicted, 0, len(expected.class_names)) and None not in layers
    if not fits or not np.array_equal(labels, expected.labels):
        return None
    return Seen(tuple(layer for layer in layers if layer), labels, predicted, expected.class_names)


def _layer(
    file: zipfile.ZipFile, number: int, name: str, num_images: int, routing: LayerRouting
) -> LayerSeen | None:
    num_tokens, num_experts = routing.gates.shape[1:]
    of_tokens = (num_images, num_tokens)
    whole = dict.fromkeys(("expert", "first"), (of_tokens, "i"))
    real = dict.fromkeys(("gate", "slots"), of_tokens)
    real |= {"share": (num_images, num_experts), "influence": (num_experts,)}
    pairs = dict.fromkeys(("together", "weight_similarity", "output_similarity"), (num_experts, num_experts))
    shapes = whole | {name: (shape, "f") for name, shape in (real | pairs).items()}
    arrays = {key: read_array(file, f"{number}/{key}", *one) for key, one in shapes.items()}
    if not _within(arrays["expert"], -1, num_experts) or not _within(arrays["first"], 0, num_experts):
        return None
    return LayerSeen(name=name, grid=routing.grid, num_prefix=routing.num_prefix, **arrays)


def _within(values: np.ndarray, low: int, above: int) -> bool:
    return bool(np.all((values >= low) & (values < above)))
