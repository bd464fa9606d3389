"""Shards in the WebDataset format, read by position: tar files in which the members of a sample share a name.

timm's reader of them streams: the order of samples hangs on the number of workers and processes, and an epoch
cannot be taken up in the middle. An index of where each image lies, made once and kept beside the shards,
makes them files like others.
"""

import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS

from routerbench.data.class_maps import named
from routerbench.data.folders import existing_folder
from routerbench.data.image_files import EncodedFiles
from routerbench.data.sources import Source
from routerbench.data.splits import Part


@dataclass(frozen=True)
class ShardFiles(EncodedFiles):
    """The images of a split of shards: which shard, from which byte on, how many bytes, which label."""

    shards: list[Path]
    shard: NDArray[np.int64]
    start: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The shard and where the image begins."""
        return f"{self.shards[self.shard[index]]} from byte {self.start[index]} on"

    def label(self, index: int) -> int:
        """The label alone."""
        return int(self.labels[index])

    def open(self, index: int) -> AbstractContextManager[BinaryIO]:
        """The bytes of the image."""
        with self.shards[self.shard[index]].open("rb") as shard:
            shard.seek(int(self.start[index]))
            return io.BytesIO(shard.read(int(self.num_bytes[index])))


def wds(
    path: str | None, train_split: str, test_split: str, label_key: str | None, class_map: str | None
) -> Source:
    """Shards in a folder: `<split>-*.tar`, `*-<split>-*.tar` or `<split>/*.tar`.

    Raises ValueError where there are none of a split, or they do not hold images with labels.
    """
    root = existing_folder(path, "wds")
    name = Part.parse("data.train_split", train_split).name
    train, test = (open_split(root, split, label_key) for split in (name, test_split))
    return Source(train, test, named(class_map, (), [train.labels, test.labels]))


def open_split(folder: Path, split: str, label_key: str | None) -> ShardFiles:
    """The shards of a split: `<split>-*.tar`, `*-<split>-*.tar` or `<split>/*.tar`.

    Raises ValueError where there are none, or one is no plain tar file of images with labels.
    """
    patterns = (f"{split}-*.tar", f"*-{split}-*.tar", f"{split}/*.tar")
    shards = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not shards:
        raise ValueError(f"data.path={str(folder)!r} has no shards of {split}: {' or '.join(patterns)}")
    stamp = _stamp(shards, label_key)
    kept = folder / f".routerbench-{split.replace('/', '-')}.npz"
    index = _read(kept, stamp)
    if index is None:
        index = _index(shards, label_key)
        _write(kept, stamp, index)
    return ShardFiles(shards, *index.T)


def _index(shards: list[Path], label_key: str | None) -> NDArray[np.int64]:
    """Shard, start, bytes and label of each image; raises ValueError for a shard that cannot be read so."""
    rows = []
    for number, shard in enumerate(shards):
        try:
            rows += [(number, *sample) for sample in _samples(shard, label_key)]
        except (tarfile.TarError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{shard} is no shard of images with labels ({type(error).__name__}: {error}): "
                "it needs a .cls, or data.label_key in a .json, for each"
            ) from error
    if not rows:
        raise ValueError(f"{shards[0].parent} has shards without images ({' '.join(IMG_EXTENSIONS)})")
    return np.array(rows, dtype=np.int64)


def _samples(shard: Path, label_key: str | None) -> Iterator[tuple[int, int, int]]:
    """Start, bytes and label of each image; members of a sample follow each other, as WebDataset has it."""
    with tarfile.open(shard, "r:") as tar:
        members = (member for member in tar if member.isfile())
        for key, sample in groupby(members, lambda member: _split_name(member.name)[0]):
            image, label = None, None
            for member in sample:
                extension = _split_name(member.name)[1]
                if f".{extension}" in IMG_EXTENSIONS:
                    image = (member.offset_data, member.size)
                elif extension == ("json" if label_key else "cls"):
                    label = _label(tar.extractfile(member), label_key)
            if (image is None) != (label is None):
                raise KeyError(f"{key} has no {'image' if image is None else 'label'}")
            if image is not None and label is not None:
                yield *image, label


def _split_name(name: str) -> tuple[str, str]:
    """What the members of a sample share, and the extension: all after the first dot of the file's name."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}", extension.lower()


def _label(file: Any, label_key: str | None) -> int:
    content = file.read()
    return int(json.loads(content)[label_key] if label_key else content)


def _stamp(shards: list[Path], label_key: str | None) -> str:
    """What must be unchanged for an index to hold."""
    states = [(shard.name, *(shard.stat().st_size, shard.stat().st_mtime_ns)) for shard in shards]
    return json.dumps([label_key, states])


def _read(path: Path, stamp: str) -> NDArray[np.int64] | None:
    """The index that is kept there, if it is of these shards."""
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return kept["index"] if str(kept["stamp"]) == stamp else None
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
    ):  # none yet, or damaged: it is made again
        return None


def _write(path: Path, stamp: str, index: NDArray[np.int64]) -> None:
    """Keep the index, as a whole or, in a folder that cannot be written to, not at all."""
    with suppress(OSError), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder, "index.npz")
        np.savez(part, stamp=np.array(stamp), index=index)
        os.replace(part, path)
