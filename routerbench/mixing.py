"""Mixup and CutMix of every two images that stand side by side in a batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from timm.data.mixup import Mixup
from torch import Tensor

from routerbench.data.randomness import MIX, seeded


@dataclass(frozen=True)
class NeighbourMix:
    """timm's Mixup in the steps before `end`, for batches whose partners are 0 and 1, 2 and 3 ...

    How they are mixed is drawn once a step, from the seed and the number of the step alone. So a process
    that has an even, contiguous share of the batch does to it what one with the whole batch does.
    """

    mixup: Mixup
    seed: int
    end: int | None
    """The first step without it; null: there is none."""

    def __call__(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], number: int
    ) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"] | Float[Tensor, "B classes"]]:
        """The images of step `number`, which counts from 0, and their soft targets."""
        if self.end is not None and number >= self.end:
            return images, labels
        order = _mirrored(len(images)).to(images.device)
        back = order.argsort()
        with seeded(self.seed, number, MIX):
            mixed, targets = self.mixup(images[order], labels[order])
        return mixed[back], targets[back]


def _mirrored(num_images: int) -> Int[Tensor, "B"]:
    """0, 2, 4 ... 5, 3, 1: timm's partners are the first and the last, the second and the last but one ..."""
    pairs = torch.arange(num_images).view(-1, 2)
    return torch.cat([pairs[:, 0], pairs[:, 1].flip(0)])
