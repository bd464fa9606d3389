"""What images a number was measured on, in a few letters: another folder or a changed file gives others."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from routerbench.data.image_files import ImageFiles, PathFiles, Selected
from routerbench.data.shards import ShardFiles
from routerbench.data.sources import Arrays, Dataset, labels_of

Fingerprint = dict[str, Any]
"""`number` of images or files, and `sha256`."""


def of_dataset(dataset: Dataset) -> Fingerprint:
    """Of the labels and, of arrays, their values; of files, their names with their folder's, and sizes.

    Where a set lies has no say. Of what Hugging Face's library reads it is the labels alone. Raises OSError.
    """
    labels = labels_of(dataset)
    digest = hashlib.sha256(labels.tobytes())
    if isinstance(dataset, Arrays):
        digest.update(str(tuple(dataset.images.shape)).encode())
        digest.update(dataset.images.contiguous().numpy().data)
    else:
        for index in range(len(dataset)):
            digest.update(_told(dataset, index).encode("utf-8", "surrogateescape") + b"\0")
    return {"number": len(labels), "sha256": digest.hexdigest()}


def of_folder(folder: Path) -> Fingerprint:
    """Of the names in a folder and in those within, and of the sizes of files; raises OSError."""
    files = sorted(_files(folder))
    digest = hashlib.sha256()
    for name, size in files:
        digest.update(f"{name} {size}\0".encode("utf-8", "surrogateescape"))
    return {"number": len(files), "sha256": digest.hexdigest()}


def of_several(fingerprints: list[Fingerprint]) -> Fingerprint:
    """Of sets in this order."""
    digest = hashlib.sha256("".join(one["sha256"] for one in fingerprints).encode())
    return {"number": sum(one["number"] for one in fingerprints), "sha256": digest.hexdigest()}


def _told(files: ImageFiles, index: int) -> str:
    if isinstance(files, Selected):
        return _told(files.files, int(files.places[index]))
    if isinstance(files, PathFiles):
        path = Path(files.name(index))
        return f"{path.parent.name}/{path.name} {path.stat().st_size}"
    if isinstance(files, ShardFiles):
        shard = files.shards[files.shard[index]]
        return f"{shard.name} {files.start[index]} {files.num_bytes[index]}"
    return ""


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(place, name)
            yield os.path.relpath(path, folder), os.stat(path).st_size
