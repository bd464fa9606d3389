"""Which of the test images are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from routerbench.inspection.seeing.seen import Seen

OF_EACH_CLASS = 4
CLASSES_SHOWN = 8
MOST_DRAWN = 64

Labels = Int64[np.ndarray, "N"]
Places = Int64[np.ndarray, "n"]


@dataclass(frozen=True)
class Choice:
    """What the words of the command ask for; the first image of a few classes where they ask for nothing."""

    images: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    most: int | None = None
    """So many of the images whose tokens fill most slots."""
    least: int | None = None

    def check(self, labels: Labels, class_names: Sequence[str]) -> None:
        """Raise ValueError for an image, or a class, that a test set has not, and for too many images."""
        number = len(self._named(labels, class_names)) or min(self.most or self.least or 0, len(labels))
        if number > MOST_DRAWN:
            raise ValueError(
                f"{self._words()}: {number} images are more than a page shows: choose up to {MOST_DRAWN}"
            )

    def places(self, seen: Seen) -> Places:
        """The places of the images, of a choice that may be."""
        named = self._named(seen.labels, seen.class_names)
        if len(named):
            return named
        filled = sum(layer.slots.sum(1, dtype=np.float64) for layer in seen.layers)
        if self.most is not None:
            return np.argsort(-filled, kind="stable")[: self.most]
        if self.least is not None:
            return np.argsort(filled, kind="stable")[: self.least]
        return np.unique(seen.labels, return_index=True)[1][:CLASSES_SHOWN]

    def _words(self) -> str:
        """The choice as it is typed."""
        given = vars(self).items()
        return " ".join(
            f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in given
            if value
        )

    def _named(self, labels: Labels, class_names: Sequence[str]) -> Places:
        """Those that are given by their places or classes; none where the choice is another one."""
        if self.images:
            return _given(self.images, len(labels))
        own = [_of_class(labels, class_names, name)[:OF_EACH_CLASS] for name in self.classes]
        return np.concatenate([np.empty(0, np.int64), *own])


def _given(images: Sequence[int], number: int) -> Places:
    for image in images:
        if not 0 <= image < number:
            raise ValueError(f"--images={image} is not there: the test set has 0 to {number - 1}")
    return np.array(images, dtype=np.int64)


def _of_class(labels: Labels, class_names: Sequence[str], name: str) -> Places:
    if name not in class_names:
        raise ValueError(f"--classes={name} is not one of: {', '.join(class_names[:30])}")
    places = np.flatnonzero(labels == class_names.index(name))
    if not len(places):
        raise ValueError(f"--classes={name} has no image in the test set: name another one")
    return places
