"""The images that are drawn: which they are, and their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from routerbench.figures.style import short
from routerbench.inspection.seeing.seen import Seen

SIDE_INCHES, CAPTION_INCHES = 1.2, 1.25


@dataclass(frozen=True)
class ShownImages:
    """Some of the test images, by their place among all of them."""

    places: Int64[np.ndarray, "n"]
    pixels: Float[np.ndarray, "n H W 3"]
    """In [0, 1]."""

    def __getitem__(self, part: slice) -> "ShownImages":
        """Some of them."""
        return ShownImages(self.places[part], self.pixels[part])

    def __len__(self) -> int:
        """How many they are."""
        return len(self.places)


def caption(seen: Seen, place: int) -> str:
    """The label of an image, what the model took it for where that is another, and its place."""
    label, predicted = (seen.class_names[values[place]] for values in (seen.labels, seen.predicted))
    verdict = "right" if label == predicted else f"taken for {short(predicted, 16)}"
    return f"{short(label, 16)}\n{verdict}\nimage {place}"


def grey(pixels: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """How light each pixel is, from pale to white, so that colours can be read on it."""
    light = pixels @ np.array([0.299, 0.587, 0.114])
    low, high = np.percentile(light, (1, 99))
    return 0.4 + 0.6 * np.clip((light - low) / max(high - low, 1e-3), 0, 1)


def columns_of(names: Sequence[str]) -> list[str]:
    """The title of each column."""
    return ["image", *(short(name, 20) for name in names)]
