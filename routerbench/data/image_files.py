"""Image files on disk: the folders of a split, and an image that cannot be read named by its file."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from routerbench.data.randomness import AUGMENT, seeded
from routerbench.data.transforms import FileTransform

# What pillow's decoders raise on damaged files, SyntaxError by the PNG one.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class CorruptImageError(ValueError):
    """An image file that cannot be read: the input is at fault, not the run."""


def open_split(root: Path, part: str) -> ImageFolder:
    """The class folders below `root`/`part`; raises ValueError where there are none or one is empty."""
    folder = root / part
    if not folder.is_dir():
        raise ValueError(
            f"data.path={str(root)!r} has no folder {part}/: give one that holds train/ and val/"
        )
    if not any(entry.is_dir() for entry in folder.iterdir()):
        raise ValueError(f"{folder} has no class folders: it needs one folder of images per class")
    files = ImageFolder(folder, loader=read_image, allow_empty=True)
    filled = set(files.targets)
    for label, name in enumerate(files.classes):
        if label not in filled:
            raise ValueError(
                f"{folder / name} is an empty class: remove it or put images there "
                f"({' '.join(IMG_EXTENSIONS)})"
            )
    return files


def read_image(path: str) -> Image.Image:
    """The RGB image in a file; raises ValueError naming the file where it cannot be decoded."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except DAMAGED as error:
        raise ValueError(
            f"{path} cannot be read as an image ({type(error).__name__}): replace or remove it"
        ) from error


def read_size(path: str) -> tuple[int, int]:
    """Width and height of the image in a file by its header alone; (0, 0) where that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except DAMAGED:  # to decode the image will name the file
        return 0, 0


@dataclass(frozen=True)
class Unreadable:
    """What stands for an image that cannot be read until it reaches the training process.

    An exception of a worker would arrive with the worker's traceback in its text; a value arrives as it is.
    """

    message: str


@dataclass(frozen=True)
class SeededFiles(Dataset[tuple[Tensor, int] | Unreadable]):
    """A split in one epoch; what is random in an image hangs on seed, epoch and its place in the set."""

    read: Callable[[int], Image.Image]
    labels: Sequence[int]
    transform: FileTransform
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | Unreadable:
        try:
            image = self.read(index)
        except ValueError as error:
            return Unreadable(str(error))
        with seeded(self.seed, self.epoch, AUGMENT, index):
            return self.transform(image), self.labels[index]


def collate(samples: list[tuple[Tensor, int] | Unreadable]) -> tuple[Tensor, Tensor] | Unreadable:
    """The batch of the samples, or the first of them that is unreadable."""
    unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
    return unreadable[0] if unreadable else tuple(default_collate(samples))
