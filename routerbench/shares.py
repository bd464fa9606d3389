"""Which images of a batch, and which batches of an evaluation, are those of one of the processes of a run."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from routerbench.data.loaders import Batch, Loader


@dataclass(frozen=True)
class TrainingShare:
    """Of each part of a batch, in which it goes through the model, the share of this rank."""

    loader: Loader
    rank: int
    num_ranks: int
    num_parts: int

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from that of number `start` on."""
        for images, labels in self.loader.epoch(number, start):
            rows = torch.arange(len(images)).view(self.num_parts, self.num_ranks, -1)[:, self.rank].flatten()
            yield images[rows], labels[rows]


@dataclass(frozen=True)
class EvaluationShare:
    """Some of the batches, which with those of all ranks are each once, in order."""

    loader: Loader
    rank: int
    num_ranks: int

    def __len__(self) -> int:
        return len(range(*self._bounds))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this rank from that of number `start` on."""
        first, end = self._bounds
        for index, batch in enumerate(self.loader.epoch(number)):
            if first + start <= index < end:
                yield batch

    @property
    def _bounds(self) -> tuple[int, int]:
        first, end = (len(self.loader) * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        return first, end
