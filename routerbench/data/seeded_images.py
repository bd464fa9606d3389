"""Samples for the workers of a loader: what is random in one hangs on seed, epoch and its number alone."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from routerbench.data.pixels import FileTransform
from routerbench.data.randomness import AUGMENT, seeded

ReadImage = Callable[[int], tuple[Image.Image, int]]
Request = tuple[int, int]
"""Epoch and number of a sample, which is `repeat * num_images + index`."""


@dataclass(frozen=True)
class Sample:
    """An image and its label, or that of its stead; None where none can be read."""

    content: tuple[Tensor, int] | None
    unreadable: list[str]
    """A line for each image that could not be read on the way.

    An exception of a worker would arrive with the worker's traceback in its text; a value arrives as it is.
    """


@dataclass(frozen=True)
class SeededImages(Dataset[Sample]):
    """The samples of a split in any epoch."""

    read: ReadImage
    num_images: int
    transform: FileTransform
    seed: int
    spares: Callable[[int, int], list[int]]
    """By epoch and place: the images that may stand in for one that cannot be read."""

    def __getitem__(self, request: Request) -> Sample:
        epoch, number = request
        content, unreadable = self._read(epoch, number % self.num_images)
        if content is None:
            return Sample(None, unreadable)
        image, label = content
        with seeded(self.seed, epoch, AUGMENT, number):
            return Sample((self.transform(image), label), unreadable)

    def _read(self, epoch: int, index: int) -> tuple[tuple[Image.Image, int] | None, list[str]]:
        """The image or the first of its spares that can be read, and what is wrong with those before."""
        try:
            return self.read(index), []
        except ValueError as error:
            unreadable = [str(error)]
        for spare in self.spares(epoch, index):
            try:
                return self.read(spare), unreadable
            except ValueError as error:
                unreadable.append(str(error))
        return None, unreadable


@dataclass(frozen=True)
class Collated:
    """A batch of samples, without those that have no content; None if no sample has."""

    batch: tuple[Tensor, Tensor] | None
    num_missing: int
    unreadable: list[str]


def collate(samples: list[Sample]) -> Collated:
    """The samples as one batch."""
    contents = [sample.content for sample in samples if sample.content is not None]
    batch = tuple(default_collate(contents)) if contents else None
    unreadable = [line for sample in samples for line in sample.unreadable]
    return Collated(batch, len(samples) - len(contents), unreadable)
