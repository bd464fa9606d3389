"""A run seen in a mode, and the files beside its record that hold what is known of every image."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from routerbench.arrays import UNREADABLE, open_arrays, read_array
from routerbench.costs import ExecutedFlops
from routerbench.evaluations.measurement import entry_name
from routerbench.evaluations.seeing.observation import Observation, observe
from routerbench.load import FinishedRun
from routerbench.modes import Mode, evaluated_in
from routerbench.records import make_folder, replaced, write_text

FOLDER = "eval"
DTYPES = {"correct": np.dtype(np.bool_), "confidence": np.dtype(np.float32)}


def observed_in(run: FinishedRun, mode: Mode) -> tuple[Observation, ExecutedFlops]:
    """All test images in this mode, and what it takes; raises ValueError for one that the run cannot have."""
    size = run.config.data.image_size
    with evaluated_in(run.model, mode):
        costs = ExecutedFlops.of(run.model, (size, size))
        return observe(run, run.batches()), costs


def file_name(run: FinishedRun, mode: Mode) -> str:
    """The mode's place in the record, as a name of files."""
    return entry_name(run, mode.name).replace(" ", "_")


def keep_images(run: FinishedRun, mode: Mode, seen: Observation) -> None:
    """Write which images were right, and how sure the model was; raises UnwritableError."""
    path = images_path(run.folder, file_name(run, mode))
    make_folder(path.parent)
    arrays = {"correct": seen.correct, "confidence": seen.confidence}
    with replaced(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def kept_images(
    folder: Path, name: str, num_images: int
) -> tuple[Bool[np.ndarray, "N"], Float32[np.ndarray, "N"]] | None:
    """Which images were right and how sure the model was; None where the file is not that of N images."""
    try:
        with open_arrays(images_path(folder, name)) as file:
            correct, confidence = (
                read_array(file, name, (num_images,), dtype.str) for name, dtype in DTYPES.items()
            )
    except UNREADABLE:
        return None
    return correct, confidence


def images_path(folder: Path, name: str) -> Path:
    """Where `keep_images` writes."""
    return folder / FOLDER / "capacity" / f"{name}.npz"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all; raises UnwritableError."""
    make_folder(path.parent)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
