"""Images that are decoded one at a time: what is common to all sources of them, and those of a folder."""

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

# What pillow's decoders raise on damaged files, SyntaxError by the PNG one.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class CorruptImageError(ValueError):
    """An image file that cannot be read: the input is at fault, not the run."""


class ImageFiles(ABC):
    """Images that are decoded one at a time, when they are asked for by their place."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> tuple[Image.Image, int]:
        """The RGB image and its label; raises ValueError naming the file where it cannot be decoded."""

    @abstractmethod
    def label(self, index: int) -> int:
        """The label alone."""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image by its header alone; (0, 0) where that cannot be read."""


class EncodedFiles(ImageFiles):
    """Images that are decoded by pillow, each from a file of its own."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What a message calls the file."""

    @abstractmethod
    def open(self, index: int) -> AbstractContextManager[BinaryIO]:
        """The file, which the caller closes."""

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The RGB image and its label; raises ValueError naming the file where it cannot be decoded."""
        try:
            with self.open(index) as file, Image.open(file) as image:
                return image.convert("RGB"), self.label(index)
        except DAMAGED as error:
            raise unreadable(self.name(index), error) from error

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image by its header alone; (0, 0) where that cannot be read."""
        try:
            with self.open(index) as file, Image.open(file) as image:
                return image.size
        except DAMAGED:  # to decode the image will name the file
            return 0, 0


@dataclass(frozen=True)
class PathFiles(EncodedFiles):
    """Files by their paths, in arrays: lists would be copied into every worker, object by object."""

    paths: np.ndarray
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, samples: Sequence[tuple[str, int]]) -> "PathFiles":
        """Path and label of each image."""
        return cls(
            np.array([path.encode("utf-8", "surrogateescape") for path, _ in samples]),
            np.array([label for _, label in samples], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The path."""
        return bytes(self.paths[index]).decode("utf-8", "surrogateescape")

    def label(self, index: int) -> int:
        """The label alone."""
        return int(self.labels[index])

    def open(self, index: int) -> AbstractContextManager[BinaryIO]:
        """The file, which the caller closes."""
        return open(self.name(index), "rb")


@dataclass(frozen=True)
class Selected(ImageFiles):
    """Some images of a set, by their places in it."""

    files: ImageFiles
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The RGB image and its label; raises ValueError naming the file where it cannot be decoded."""
        return self.files.read(int(self.places[index]))

    def label(self, index: int) -> int:
        """The label alone."""
        return self.files.label(int(self.places[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image by its header alone; (0, 0) where that cannot be read."""
        return self.files.size(int(self.places[index]))


def unreadable(name: str, error: Exception) -> ValueError:
    """What to raise for a file that cannot be decoded."""
    return ValueError(f"{name} cannot be read as an image ({type(error).__name__}): replace or remove it")


def class_folders(folder: Path) -> dict[str, int]:
    """The class folders in `folder`, numbered by name; raises ValueError where there are none."""
    if not any(entry.is_dir() for entry in folder.iterdir()):
        raise ValueError(f"{folder} has no class folders: it needs one folder of images per class")
    return find_classes(folder)[1]


def open_folder(folder: Path, labels: Mapping[str, int]) -> PathFiles:
    """The images in the class folders that have a label, by folder; raises ValueError where one is empty."""
    samples = make_dataset(folder, dict(labels), IMG_EXTENSIONS, allow_empty=True)
    filled = {label for _, label in samples}
    for name, label in labels.items():
        if label not in filled:
            raise ValueError(
                f"{folder / name} is an empty class: remove it or put images there "
                f"({' '.join(IMG_EXTENSIONS)})"
            )
    return PathFiles.of(samples)
