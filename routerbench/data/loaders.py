"""Batches of a data set: the same ones whatever the workers and the state of the global generators."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from routerbench.data.decoded import ReadImage, image_reader
from routerbench.data.image_files import CorruptImageError, SeededFiles, Unreadable, collate
from routerbench.data.randomness import AUGMENT, ORDER, WORKERS, generator
from routerbench.data.sources import Arrays, Dataset
from routerbench.data.transforms import (
    NUM_DRAWS,
    Augmentation,
    CropFlip,
    FileTransform,
    NoAugmentation,
    evaluation_transform,
    for_arrays,
    for_files,
    normalise,
    resize,
)

Batch = tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, "B"]]


@dataclass(frozen=True)
class Shuffled:
    """Another order in each epoch, of `num_images` drawn from the `num_stored`."""

    num_stored: int
    num_images: int
    seed: int

    def indices(self, epoch: int) -> Int64[Tensor, "N"]:
        """The first `num_images` of a permutation drawn from seed and epoch."""
        order = torch.randperm(self.num_stored, generator=generator(self.seed, epoch, ORDER))
        return order[: self.num_images]


@dataclass(frozen=True)
class InOrder:
    """The order of the data set."""

    num_images: int

    def indices(self, epoch: int) -> Int64[Tensor, "N"]:
        """0 to N - 1."""
        return torch.arange(self.num_images)


Order = Shuffled | InOrder


@dataclass(frozen=True)
class ArrayLoader:
    """Batches from memory, each augmented as a whole."""

    arrays: Arrays
    order: Order
    batch_size: int
    image_size: int
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]
    augment: NoAugmentation | CropFlip
    seed: int

    @property
    def num_images(self) -> int:
        """How many images an epoch has."""
        return self.order.num_images

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from that of number `start` on.

        What happens to an image hangs on seed, epoch and its place in the set.
        """
        draws = torch.rand(len(self.arrays), NUM_DRAWS, generator=generator(self.seed, number, AUGMENT))
        for indices in self.order.indices(number)[start * self.batch_size :].split(self.batch_size):
            images = self.augment.change(self.arrays.images.index_select(0, indices), draws[indices])
            images = normalise(resize(images, self.image_size), self.mean, self.std)
            yield images, self.arrays.labels[indices]


@dataclass(frozen=True)
class FileLoader:
    """Batches of image files, decoded and augmented one by one in `workers` processes (0: in this one).

    Where all images of the split fit in `decoded_cache_gib`, they are decoded in the first epoch alone.
    """

    files: ImageFolder
    order: Order
    batch_size: int
    transform: FileTransform
    seed: int
    workers: int
    decoded_cache_gib: float

    @cached_property
    def read(self) -> ReadImage:
        """What gives an image of the split; made when it is first asked for, for it looks at every file."""
        return image_reader(self.files, self.decoded_cache_gib)

    @property
    def num_images(self) -> int:
        """How many images an epoch has."""
        return self.order.num_images

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from that of number `start` on.

        Raises CorruptImageError, which names the file.
        """
        batches = DataLoader(
            SeededFiles(self.read, self.files.targets, self.transform, self.seed, number),
            batch_size=self.batch_size,
            sampler=self.order.indices(number)[start * self.batch_size :].tolist(),
            num_workers=self.workers,
            collate_fn=collate,
            generator=generator(self.seed, number, WORKERS),  # else it draws from the global one
        )
        for batch in batches:
            if isinstance(batch, Unreadable):
                raise CorruptImageError(batch.message)
            yield batch


Loader = ArrayLoader | FileLoader


def train_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Augmentation,
    seed: int,
    workers: int,
    decoded_cache_gib: float,
) -> Loader:
    """Shuffled, augmented batches, all of `batch_size`: the images left over wait for another epoch.

    Raises ValueError where the set is smaller than a batch or cannot have this augmentation.
    `workers` are processes that decode image files, which are kept decoded where all of them fit in
    `decoded_cache_gib`; images in memory need neither.
    """
    if len(dataset) < batch_size:
        raise ValueError(
            f"batch_size={batch_size} is more than the {len(dataset)} training images: give at most that"
        )
    order = Shuffled(len(dataset), len(dataset) // batch_size * batch_size, seed)
    if isinstance(dataset, Arrays):
        augment = for_arrays(augment, *dataset.images.shape[2:])
        return ArrayLoader(dataset, order, batch_size, image_size, column(mean), column(std), augment, seed)
    transform = for_files(augment).file_transform(image_size, mean, std)
    return FileLoader(dataset, order, batch_size, transform, seed, workers, decoded_cache_gib)


def test_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    workers: int,
    decoded_cache_gib: float,
) -> Loader:
    """Every image once, in the order of the data set; the last batch may be smaller."""
    order, seed = InOrder(len(dataset)), 0  # nothing is random
    if isinstance(dataset, Arrays):
        plain = NoAugmentation("none")
        return ArrayLoader(dataset, order, batch_size, image_size, column(mean), column(std), plain, seed)
    transform = evaluation_transform(image_size, mean, std)
    return FileLoader(dataset, order, batch_size, transform, seed, workers, decoded_cache_gib)


def column(values: Sequence[float]) -> Float[Tensor, "3 1 1"]:
    """One number per channel, to be spread over images."""
    return torch.tensor(tuple(values)).view(3, 1, 1)
