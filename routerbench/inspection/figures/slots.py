"""What the slots of a soft router are made of: their dispatch weights over the image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from routerbench.figures.picture import Picture
from routerbench.figures.style import drawing, short
from routerbench.figures.tint import tinted
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.images import draw_image, image_grid
from routerbench.inspection.figures.shown import ShownImages, caption, grey
from routerbench.inspection.figures.tones import tone_key
from routerbench.inspection.seeing.seen import Seen

MOST_EXPERTS, MOST_IMAGES = 8, 6
WORDS = (
    "For each image (rows) the strongest slot of each expert (columns): how much of the slot comes from each "
    "patch. Strongest is the slot that weighs most in the image's outputs, as all its tokens add up."
)


@dataclass(frozen=True)
class Mixtures:
    """What a soft router made of the shown images, in one layer."""

    layer: str
    grid: tuple[int, int]
    num_prefix: int
    dispatch: Float[np.ndarray, "n T E P"]
    """Share of each token in each slot; sums to 1 over tokens."""
    combine: Float[np.ndarray, "n T E P"]
    """Share of each slot in each token's output; sums to 1 over all slots."""

    @property
    def influence(self) -> Float[np.ndarray, "n E P"]:
        """Share of each slot in the outputs of all tokens of the image."""
        return self.combine.mean(1)


def dispatch_maps(seen: Seen, mixtures: Mixtures, shown: ShownImages) -> Drawn:
    """A heat map over the image for the strongest slot of each expert; of many experts the strongest."""
    part = shown[:MOST_IMAGES]
    experts = _strongest_experts(mixtures)
    slots = mixtures.influence.argmax(-1)
    maps = np.stack([_maps(mixtures, image, experts, slots[image]) for image in range(len(part))])
    low, high = (float(value) for value in np.percentile(maps, (1, 99)))
    with drawing():
        figure, grid = image_grid(len(part), ["image", f"expert {experts[0]}", *map(str, experts[1:])])
        for line, place, pixels, own in zip(grid, part.places.tolist(), part.pixels, maps, strict=True):
            draw_image(line[0], pixels, caption(seen, place))
            for axes, weights in zip(line[1:], own, strict=True):
                extent = (0, mixtures.grid[1], mixtures.grid[0], 0)
                axes.imshow(grey(pixels), cmap="gray", vmin=-2, vmax=1, extent=extent)
                shares = 0.9 * np.clip((weights - low) / max(high - low, 1e-12), 0, 1)
                axes.imshow(tinted(shares), extent=extent, interpolation="none")
        tone_key(figure, {f"{low:.2f} times an even mixture or less": 0.0, f"{high:.2f} times or more": 0.9})
    name = f"dispatch_{mixtures.layer}"
    words = " ".join([WORDS, *_more_words(mixtures, experts, len(shown) - len(part))])
    picture = Picture(f"Slots of the experts: {short(mixtures.layer)}", words, figure)
    columns = ("image", "expert", "slot", "influence", "token", "weight_over_even_mixture")
    return Drawn(name, picture, columns, _rows(mixtures, part))


def _strongest_experts(mixtures: Mixtures) -> list[int]:
    """The experts that weigh most in the outputs, in the order of their numbers."""
    influence = mixtures.influence.sum((0, 2))
    return sorted(int(expert) for expert in np.argsort(-influence, kind="stable")[:MOST_EXPERTS])


def _maps(
    mixtures: Mixtures, image: int, experts: list[int], slots: Int64[np.ndarray, "E"]
) -> Float[np.ndarray, "experts rows columns"]:
    """The weights of the patches in these slots, over those of an even mixture of all tokens."""
    num_tokens = mixtures.dispatch.shape[1]
    weights = mixtures.dispatch[image, mixtures.num_prefix :, experts, slots[experts]]
    return num_tokens * weights.reshape(len(experts), *mixtures.grid).astype(np.float64)


def _more_words(mixtures: Mixtures, experts: list[int], images_left_out: int) -> list[str]:
    words = []
    if mixtures.num_prefix:
        prefix = mixtures.dispatch[:, : mixtures.num_prefix].sum(1).mean()
        words.append(
            f"The class token (or registers), which is not drawn, is {100 * prefix:.0f} % of a slot."
        )
    if len(experts) < mixtures.dispatch.shape[2]:
        words.append(f"Of {mixtures.dispatch.shape[2]} experts the {len(experts)} that weigh most are drawn.")
    if images_left_out:
        words.append(f"The last {images_left_out} images are not drawn.")
    return words


def _rows(mixtures: Mixtures, shown: ShownImages) -> list[Row]:
    num_tokens = mixtures.dispatch.shape[1]
    influence = mixtures.influence
    return [
        (
            int(shown.places[image]),
            expert,
            slot,
            float(influence[image, expert, slot]),
            token,
            num_tokens * float(weight),
        )
        for (image, token, expert, slot), weight in np.ndenumerate(mixtures.dispatch[: len(shown)])
    ]
