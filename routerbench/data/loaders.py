"""Batches of a data set: the same ones whatever the workers, the ranks and the global generators."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader

from routerbench.data.decoded import image_reader
from routerbench.data.image_files import CorruptImageError, ImageFiles
from routerbench.data.orders import InOrder, Order, Share, Shuffled
from routerbench.data.pixels import CentreCrop, FileTransform, normalise, resize
from routerbench.data.randomness import AUGMENT, ERASE, WORKERS, generator, seeded
from routerbench.data.seeded_images import Collated, Request, SeededImages, collate
from routerbench.data.sources import Arrays, Dataset
from routerbench.data.transforms import (
    NUM_DRAWS,
    Augmentation,
    CropFlip,
    NoAugmentation,
    for_arrays,
    for_files,
)
from routerbench.signals import asking_to_stop

Batch = tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, "B"]]


@dataclass(frozen=True)
class Decoding:
    """How image files become images, in `workers` processes (0: in this one).

    Where all images of a split fit in `cache_gib`, they are decoded once. One that cannot be read ends the
    run; with `skip_corrupt` an evaluation leaves it out, and in training the next one stands in for it.
    """

    workers: int
    cache_gib: float
    skip_corrupt: bool
    centre_crop: CentreCrop


@dataclass(frozen=True)
class ArrayLoader:
    """Batches from memory, each augmented as a whole."""

    arrays: Arrays
    order: Order
    image_size: int
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]
    augment: NoAugmentation | CropFlip
    seed: int

    @property
    def dataset(self) -> Arrays:
        """What the batches are of."""
        return self.arrays

    @property
    def num_images(self) -> int:
        """How many images this rank gives in an epoch."""
        return self.order.num_images

    @property
    def skipped(self) -> frozenset[str]:
        """Nothing: an array has no corrupt files."""
        return frozenset()

    def __len__(self) -> int:
        return len(self.order)

    def close(self) -> None:
        """Nothing: no workers are used."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on.

        What happens to an image hangs on seed, epoch, its place in the set and how often it came before.
        """
        num_samples = len(self.arrays) * self.augment.num_repeats
        draws = torch.rand(num_samples, NUM_DRAWS, generator=generator(self.seed, number, AUGMENT))
        for samples in self.order.batches(number, start):
            indices = samples % len(self.arrays)
            images = self.augment.change(self.arrays.images.index_select(0, indices), draws[samples])
            images = normalise(resize(images, self.image_size), self.mean, self.std)
            self._erase(images, number, samples)
            yield images, self.arrays.labels[indices]

    def _erase(self, images: Float[Tensor, "B 3 H W"], epoch: int, samples: Int64[Tensor, "B"]) -> None:
        erase = self.augment.erasing()
        if erase is None:
            return
        for image, sample in zip(images, samples.tolist(), strict=True):
            with seeded(self.seed, epoch, ERASE, sample):
                erase(image)


@dataclass
class Requests:
    """What the workers are to make next. They outlive an epoch, which may be shorter than their start."""

    batches: Iterable[list[Request]] = ()

    def __iter__(self) -> Iterator[list[Request]]:
        return iter(self.batches)


@dataclass(frozen=True)
class FileLoader:
    """Batches of image files, decoded and augmented one by one; one epoch at a time."""

    files: ImageFiles
    order: Order
    transform: FileTransform
    seed: int
    decoding: Decoding
    skipped: set[str] = field(default_factory=set)
    """A line for each file that this process was to read and could not, with `skip_corrupt`."""

    @cached_property
    def images(self) -> SeededImages:
        """The samples of the split; made when they are first asked for, which looks at every file."""
        return SeededImages(
            image_reader(self.files, self.decoding.cache_gib),
            len(self.files),
            self.transform,
            self.seed,
            self.order.spares if self.decoding.skip_corrupt else no_spares,
        )

    @cached_property
    def _requests(self) -> Requests:
        return Requests()

    @cached_property
    def _collated(self) -> DataLoader[Collated]:
        return DataLoader(
            self.images,  # type: ignore[arg-type]
            batch_sampler=self._requests,
            num_workers=self.decoding.workers,
            persistent_workers=self.decoding.workers > 0,
            multiprocessing_context=start_method() if self.decoding.workers > 0 else None,
            collate_fn=collate,
            worker_init_fn=leave_signals_to_the_parent,
            generator=generator(self.seed, WORKERS),  # else it draws from the global one
        )

    @property
    def dataset(self) -> ImageFiles:
        """What the batches are of."""
        return self.files

    @property
    def num_images(self) -> int:
        """How many images this rank gives in an epoch, if all can be read."""
        return self.order.num_images

    def __len__(self) -> int:
        return len(self.order)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on; raises CorruptImageError, which names the file."""
        self._requests.batches = (
            [(number, sample) for sample in samples.tolist()] for samples in self.order.batches(number, start)
        )
        try:
            for collated in self._collated:
                self._look_at(collated)
                if collated.batch is not None:
                    yield collated.batch
        except BaseException:  # GeneratorExit too: workers in the midst of an epoch are of no more use
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers; another epoch starts new ones.

        The garbage collector may take their queues before it asks them to stop: torch then waits in vain.
        """
        self.__dict__.pop("_collated", None)

    def _look_at(self, collated: Collated) -> None:
        """Note what could not be read; raise CorruptImageError where nothing may or can stand in for it."""
        if not collated.unreadable:
            return
        if not self.decoding.skip_corrupt:
            raise CorruptImageError(collated.unreadable[0])
        if collated.num_missing and isinstance(self.order, Shuffled):
            raise CorruptImageError(
                f"{collated.unreadable[0]}, and those after it, which could stand in for it"
            )
        self.skipped.update(collated.unreadable)


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
    decoding: Decoding,
    share: Share,
) -> Loader:
    """Shuffled, augmented batches, all of `batch_size`, of which this process gets its `share`.

    Raises ValueError where the set is smaller than a batch, cannot have this augmentation, or a batch cannot
    be shared out evenly. Images in memory need no `decoding`.
    """
    if len(dataset) < batch_size:
        raise ValueError(
            f"batch_size={batch_size} is more than the {len(dataset)} training images: give at most that"
        )
    if augment.num_repeats > batch_size:
        raise ValueError(
            f"augment.num_repeats={augment.num_repeats} is more than batch_size={batch_size}: "
            "give at most that"
        )
    share.rows(batch_size)
    order = Shuffled(len(dataset), batch_size, augment.num_repeats, seed, share)
    if isinstance(dataset, Arrays):
        augment = for_arrays(augment, *dataset.images.shape[2:])
        return ArrayLoader(dataset, order, image_size, column(mean), column(std), augment, seed)
    of_files = for_files(augment)
    crop = decoding.centre_crop if isinstance(of_files, NoAugmentation) else of_files
    transform = crop.file_transform(image_size, mean, std)
    return FileLoader(dataset, order, transform, seed, decoding)


def test_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    decoding: Decoding,
    share: Share,
) -> Loader:
    """Every image once, in the order of the data set: a block of whole batches for each process."""
    order, seed = InOrder(len(dataset), batch_size, share), 0  # nothing is random
    if isinstance(dataset, Arrays):
        plain = NoAugmentation("none")
        return ArrayLoader(dataset, order, image_size, column(mean), column(std), plain, seed)
    transform = decoding.centre_crop.file_transform(image_size, mean, std)
    return FileLoader(dataset, order, transform, seed, decoding)


def no_spares(epoch: int, index: int) -> list[int]:
    """Nothing stands in for an image that cannot be read."""
    return []


def start_method() -> str:
    """How workers are started: as this process would, unless a launcher gave it a way of its own, as loky."""
    own = multiprocessing.get_start_method()
    if own in multiprocessing.get_all_start_methods():
        return own
    return "fork" if sys.platform == "linux" else "spawn"


def leave_signals_to_the_parent(worker: int) -> None:
    """Have a worker live on when all processes of a run are asked to stop, for the step that is under way."""
    os.setpgid(0, 0)  # a SIGTERM to the group does not reach it; its parent ends it by one
    for number in asking_to_stop() - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)


def column(values: Sequence[float]) -> Float[Tensor, "3 1 1"]:
    """One number per channel, to be spread over images."""
    return torch.tensor(tuple(values)).view(3, 1, 1)
