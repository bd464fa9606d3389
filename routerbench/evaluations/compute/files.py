"""What the study of compute by image leaves beside the record: tables, pictures, a gallery."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from routerbench.evaluations.compute.gallery import Looked, look_at
from routerbench.evaluations.compute.numbers import extremes
from routerbench.evaluations.figures.compute import compute_picture
from routerbench.evaluations.figures.gallery import gallery_picture
from routerbench.evaluations.seeing.observation import Observation
from routerbench.evaluations.seeing.observed import FOLDER, file_name, write_csv
from routerbench.figures.saved import save
from routerbench.load import FinishedRun
from routerbench.modes import Mode, evaluated_in
from routerbench.moe.surgery import moe_layers

NUM_SHOWN = 6  # images that won most, and as many that won least
CLASS_COLUMNS = ("class", "images", "slots_per_image", "executed_flops_per_image", "top1")


def write_files(run: FinishedRun, mode: Mode, seen: Observation, flops: Float[np.ndarray, "N"]) -> None:
    """Write them into eval/, by the name of the mode; raises UnwritableError."""
    folder, name = run.folder / FOLDER, f"compute_{file_name(run, mode)}"
    layers = [f"slots_{layer}" for layer in moe_layers(run.model)]
    columns = ["index", "label", "predicted", "correct", "confidence", *layers, "executed_flops"]
    write_csv(folder / f"{name}_images.csv", columns, _by_image(seen, flops))
    names = run.test.class_names
    by_class = list(_by_class(seen, flops, names))
    save(folder, name, compute_picture(seen, names), CLASS_COLUMNS, by_class)
    most, least = extremes(seen.slots.sum(1), NUM_SHOWN)
    with evaluated_in(run.model, mode):
        shown = look_at(run, np.concatenate([most, least]))
    if shown:
        tokens = [f"slots_of_patch_{place}" for place in range(shown[0].by_token.size)]
        columns = ["index", "label", "predicted", "slots", *tokens]
        picture = gallery_picture(shown[: len(most)], shown[len(most) :], names)
        save(folder, f"{name}_gallery", picture, columns, [_of_image(one, names) for one in shown])


def _of_image(one: Looked, names: tuple[str, ...]) -> list[object]:
    slots = [float(one.slots), *one.by_token.flatten().tolist()]
    return [one.place, names[one.label], names[one.predicted], *slots]


def _by_image(seen: Observation, flops: Float[np.ndarray, "N"]) -> Iterator[list[object]]:
    told = zip(seen.labels, seen.predicted, seen.correct, seen.confidence, seen.slots, flops, strict=True)
    for index, (label, predicted, correct, confidence, slots, cost) in enumerate(told):
        yield [index, label, predicted, int(correct), confidence, *slots.tolist(), cost]


def _by_class(
    seen: Observation, flops: Float[np.ndarray, "N"], names: tuple[str, ...]
) -> Iterator[list[object]]:
    slots = seen.slots.sum(1)
    for label in np.unique(seen.labels):
        own = seen.labels == label
        yield [names[label], own.sum(), slots[own].mean(), flops[own].mean(), seen.correct[own].mean()]
