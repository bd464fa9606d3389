"""Which of the test images are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from routerbench.inspection.seen import Seen

OF_EACH_CLASS = 4
CLASSES_SHOWN = 8
MOST_DRAWN = 64


@dataclass(frozen=True)
class Choice:
    """What the words of the command ask for; the first image of a few classes where they ask for nothing."""

    images: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    most: int | None = None
    """So many of the images whose tokens fill most slots."""
    least: int | None = None

    def places(self, seen: Seen) -> Int64[np.ndarray, "n"]:
        """The places of the images; raises ValueError for one, or a class, that is not there, or too many."""
        places = self._places(seen)
        if len(places) > MOST_DRAWN:
            raise ValueError(f"{len(places)} images are more than a page shows: choose up to {MOST_DRAWN}")
        return places

    def _places(self, seen: Seen) -> Int64[np.ndarray, "n"]:
        if self.images:
            return _given(self.images, len(seen.labels))
        if self.classes:
            return np.concatenate([_of_class(seen, name)[:OF_EACH_CLASS] for name in self.classes])
        filled = sum(layer.slots.sum(1, dtype=np.float64) for layer in seen.layers)
        if self.most is not None:
            return np.argsort(-filled, kind="stable")[: self.most]
        if self.least is not None:
            return np.argsort(filled, kind="stable")[: self.least]
        return np.unique(seen.labels, return_index=True)[1][:CLASSES_SHOWN]


def _given(images: Sequence[int], number: int) -> Int64[np.ndarray, "n"]:
    for image in images:
        if not 0 <= image < number:
            raise ValueError(f"--images={image} is not there: the test set has 0 to {number - 1}")
    return np.array(images, dtype=np.int64)


def _of_class(seen: Seen, name: str) -> Int64[np.ndarray, "n"]:
    if name not in seen.class_names:
        raise ValueError(f"--classes={name} is not one of: {', '.join(seen.class_names[:30])}")
    places = np.flatnonzero(seen.labels == seen.class_names.index(name))
    if not len(places):
        raise ValueError(f"--classes={name} has no image in the test set: name another one")
    return places
