"""Parts of a training set: `train[:99%]` to train on, `train[99%:]` held out."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Int64
from torch import Tensor

from routerbench.data.randomness import HOLD_OUT, generator

NUMBER = r"\d+|\d+(?:\.\d+)?%"
PART = re.compile(rf"(?P<name>[^\[\]]+)(?:\[(?P<start>{NUMBER})?:(?P<stop>{NUMBER})?\])?")


@dataclass(frozen=True)
class Part:
    """A split by its name, from one place to another: numbers of images or percentages."""

    setting: str
    """What a message says first: `data.train_split=train[:99%]`."""
    name: str
    start: str
    stop: str

    @classmethod
    def parse(cls, key: str, text: str) -> "Part":
        """The part that the setting `key` asks for; raises ValueError where it asks for none."""
        match = PART.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{key}={text} is no part of a split: give for example train, train[:99%] or train[5000:]"
            )
        return cls(f"{key}={text}", match["name"], match["start"] or "0", match["stop"] or "100%")

    def places(self, num_images: int) -> range:
        """The places of the part among so many images; raises ValueError if it is empty or beyond them."""
        start, stop = (_place(text, num_images) for text in (self.start, self.stop))
        if not start < stop <= num_images:
            raise ValueError(
                f"{self.setting} is no part of the {num_images} images of {self.name}: "
                f"give a start below its end, and an end of at most {num_images}"
            )
        return range(start, stop)


def places_of(train: Part, minival: Part | None, num_images: int) -> tuple[range, range]:
    """The places to train on and those held out (none: without minival).

    Raises ValueError where they are parts of different splits or overlap.
    """
    places = train.places(num_images)
    if minival is None:
        return places, range(0)
    if minival.name != train.name:
        raise ValueError(
            f"{minival.setting} is to be held out of the training set: give a part of {train.name}, "
            f"for example {train.name}[99%:]"
        )
    held_out = minival.places(num_images)
    if max(places.start, held_out.start) < min(places.stop, held_out.stop):
        raise ValueError(
            f"{train.setting} and {minival.setting} have images in common: give for example "
            f"{train.name}[:99%] and {train.name}[99%:]"
        )
    return places, held_out


def chosen(places: range, num_images: int) -> Int64[Tensor, "n"]:
    """The images at these places of a shuffled set, in the order of the set.

    It is shuffled because files come sorted by class, and always alike, so that all seeds hold out the same.
    """
    return torch.randperm(num_images, generator=generator(HOLD_OUT))[list(places)].sort().values


def _place(text: str, num_images: int) -> int:
    if not text.endswith("%"):
        return int(text)
    return math.floor(num_images * Fraction(text[:-1]) / 100)
