"""Test images that are to be seen many times, in many orders."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from routerbench.evaluate import Batch
from routerbench.load import FinishedRun
from routerbench.parts import TestSet

BYTES_PER_NUMBER = 4


@dataclass(frozen=True)
class HeldImages(TestSet):
    """A test set whose images are kept as they go through a model."""

    __test__ = False

    images: Float[Tensor, "N C H W"]
    truth: Int64[Tensor, "N"]

    def batches(
        self, places: NDArray[np.int64] | None = None, batch_size: int | None = None
    ) -> Iterator[Batch]:
        """As of any test set."""
        every = torch.arange(len(self.truth)) if places is None else torch.from_numpy(places)
        for chosen in every.split(batch_size or self.of_batches["batch_size"]):
            yield self.images[chosen], self.truth[chosen]


def with_images_held(run: FinishedRun) -> FinishedRun:
    """The run with its test images decoded once, where they fit in `runtime.decoded_cache_gib`.

    Raises ValueError where an image cannot be read and was left out: orders of all images are compared here.
    """
    test, size = run.test, run.config.data.image_size
    num_bytes = BYTES_PER_NUMBER * len(test.dataset) * 3 * size**2
    if num_bytes > run.config.runtime.decoded_cache_gib * 2**30:
        return run
    images, labels = zip(*test.batches(), strict=True)
    truth = torch.cat(labels)
    check_all_there(len(truth), len(test.dataset))
    held = HeldImages(test.dataset, test.class_names, test.of_batches, torch.cat(images), truth)
    return replace(run, test=held)


def check_all_there(num_images: int, num_asked: int) -> None:
    """Raise ValueError where fewer images came than were asked for, as with data.on_corrupt=skip."""
    if num_images < num_asked:
        raise ValueError(
            f"data.on_corrupt=skip left out {num_asked - num_images} test images that cannot be read, and "
            "all are compared here: mend or remove these files"
        )
