"""Which samples each batch has, for any number of processes: a function of seed and epoch alone.

A sample is a number, `repeat * num_images + index`: an image, and how many times it came before in its batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from routerbench.data.randomness import ORDER, generator

NUM_SPARES = 20  # images in a row that may be corrupt: with more of them something else is wrong


@dataclass(frozen=True)
class Share:
    """What one of the processes of a run takes: of a batch of training, and of the batches of an evaluation.

    A batch is cut into `num_parts` (the parts of gradient accumulation), each part into `num_ranks`.
    """

    rank: int
    num_ranks: int
    num_parts: int

    def rows(self, batch_size: int) -> Int64[Tensor, "n"]:
        """The rows of a training batch that are this rank's, part after part; raises ValueError if uneven."""
        if batch_size % (self.num_parts * self.num_ranks):
            raise ValueError(
                f"batch_size={batch_size} is no multiple of optim.accumulation_steps={self.num_parts} times "
                f"{self.num_ranks} processes: give one"
            )
        return torch.arange(batch_size).view(self.num_parts, self.num_ranks, -1)[:, self.rank].flatten()

    def batches(self, num_batches: int) -> range:
        """The batches of an evaluation that are this rank's: with those of all ranks, each once, in order."""
        first, end = (num_batches * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        return range(first, end)


ALONE = Share(rank=0, num_ranks=1, num_parts=1)


@dataclass(frozen=True)
class Shuffled:
    """Another order in each epoch, in whole batches: the images left over wait for another epoch.

    A batch has `batch_size / num_repeats` images, rounded up, then all of them again, and is cut at its size:
    an epoch keeps its batches and has fewer images. Source of repeats: E. Hoffer et al., arXiv:1901.09335;
    timm's RepeatAugSampler.
    """

    num_stored: int
    batch_size: int
    num_repeats: int
    seed: int
    share: Share

    def __len__(self) -> int:
        return self.num_stored // self.batch_size

    @property
    def num_images(self) -> int:
        """Images of an epoch that this rank gives, each as often as it comes."""
        return len(self) * self.batch_size // self.share.num_ranks

    def batches(self, epoch: int, start: int) -> Iterator[Int64[Tensor, "n"]]:
        """The samples of this rank, batch by batch from batch `start` on."""
        num_distinct = -(-self.batch_size // self.num_repeats)
        indices = self._order(epoch)[: len(self) * num_distinct]
        repeats = torch.arange(self.num_repeats)[:, None] * self.num_stored
        rows = self.share.rows(self.batch_size)
        for distinct in indices.split(num_distinct)[start:]:
            yield (repeats + distinct).flatten()[: self.batch_size][rows]

    def spares(self, epoch: int, index: int) -> list[int]:
        """The images that may stand in for one that cannot be read: those after it in the epoch."""
        order = self._order(epoch)
        place = int((order == index).nonzero())
        return order.roll(-place)[1 : 1 + NUM_SPARES].tolist()

    def _order(self, epoch: int) -> Int64[Tensor, "N"]:
        return torch.randperm(self.num_stored, generator=generator(self.seed, epoch, ORDER))


@dataclass(frozen=True)
class InOrder:
    """Every image once, in the order of the data set; the last batch may be smaller."""

    num_stored: int
    batch_size: int
    share: Share

    def __len__(self) -> int:
        return len(self._own)

    @property
    def num_images(self) -> int:
        """Images that this rank gives."""
        own, size = self._own, self.batch_size
        return max(min(self.num_stored, own.stop * size) - own.start * size, 0)

    def batches(self, epoch: int, start: int) -> Iterator[Int64[Tensor, "n"]]:
        """The images of this rank, batch by batch from its batch `start` on."""
        for batch in self._own[start:]:
            first = batch * self.batch_size
            yield torch.arange(first, min(first + self.batch_size, self.num_stored))

    def spares(self, epoch: int, index: int) -> list[int]:
        """None: an image that cannot be read is left out."""
        return []

    @property
    def _own(self) -> range:
        return self.share.batches(-(-self.num_stored // self.batch_size))


Order = Shuffled | InOrder
