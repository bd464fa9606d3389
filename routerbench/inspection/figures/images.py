"""Images whose patches have the colour of the expert that serves them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, WIDTH_INCHES, drawing
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.looks import expert_legend
from routerbench.inspection.figures.patches import draw_patches
from routerbench.inspection.figures.shown import (
    CAPTION_INCHES,
    SIDE_INCHES,
    ShownImages,
    caption,
    columns_of,
    grey,
)
from routerbench.inspection.seeing.seen import LayerSeen, Seen

MOST_LAYERS = 4
IMAGES_A_PICTURE = 6
WORDS = (
    "Each patch has the colour and the number of the expert that serves it (of several that with the largest "
    "gate), the stronger the larger its gate; hatched patches are dropped: no expert serves them. Columns "
    "are layers. Left: the image, its label, and what the model made of it."
)


def patches_by_expert(seen: Seen, layers: Sequence[LayerSeen], shown: ShownImages) -> list[Drawn]:
    """Pictures of a few images each, a row an image and a column a layer, of which the last are drawn."""
    if not layers:
        return []
    drawn = layers[-MOST_LAYERS:]
    parts = [shown[first : first + IMAGES_A_PICTURE] for first in range(0, len(shown), IMAGES_A_PICTURE)]
    words = [WORDS, *_prefix_words(drawn), *_left_out(layers, drawn), *_opacities(drawn, shown)]
    return [
        _picture(seen, drawn, shown, part, number, " ".join(words)) for number, part in enumerate(parts, 1)
    ]


def _picture(
    seen: Seen, layers: Sequence[LayerSeen], shown: ShownImages, part: ShownImages, number: int, words: str
) -> Drawn:
    num_experts = max(layer.num_experts for layer in layers)
    dropped = any(layer.dropped[part.places, layer.num_prefix :].any() for layer in layers)
    title = "Patches by expert" if len(part) == len(shown) else f"Patches by expert ({number})"
    with drawing():
        figure, grid = image_grid(len(part), columns_of([layer.name for layer in layers]))
        for line, place, pixels in zip(grid, part.places.tolist(), part.pixels, strict=True):
            draw_image(line[0], pixels, caption(seen, place))
            for axes, layer in zip(line[1:], layers, strict=True):
                draw_patches(axes, layer, place, grey(pixels), _range(layer, shown))
        expert_legend(figure, num_experts, dropped)
    columns = ("image", "label", "predicted", "layer", "row", "column", "expert", "gate", "slots")
    rows = [row for place in part.places.tolist() for layer in layers for row in _rows(seen, layer, place)]
    return Drawn(f"images_{number}", Picture(title, words, figure), columns, rows)


def image_grid(num_images: int, titles: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    """A line of small pictures for every image, with titles above the columns."""
    side = min(SIDE_INCHES, (WIDTH_INCHES - CAPTION_INCHES) / len(titles))
    figure = Figure(figsize=(WIDTH_INCHES, (side + 0.08) * num_images + 0.75))
    grid = figure.subplots(num_images, len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, size=8 if len(titles) < 6 else 7)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    return figure, [list(line) for line in grid]


def draw_image(axes: Axes, pixels: Float[np.ndarray, "H W 3"], words: str) -> None:
    """The image itself, its words at its left."""
    axes.imshow(np.clip(pixels, 0, 1), interpolation="none")
    axes.set_ylabel(words, rotation=0, ha="right", va="center", size=7, color=INK)


def _range(layer: LayerSeen, shown: ShownImages) -> tuple[float, float]:
    """The gates that have the weakest and the strongest colour: the 2nd and the 98th of 100."""
    low, high = np.percentile(layer.gate[shown.places, layer.num_prefix :], (2, 98))
    return float(low), float(high)


def _opacities(layers: Sequence[LayerSeen], shown: ShownImages) -> list[str]:
    told = [
        f"{layer.name} {low:.2f} to {high:.2f}" for layer in layers for low, high in [_range(layer, shown)]
    ]
    return [f"From the weakest colour to the strongest, the gates are in {', '.join(told)}."]


def _prefix_words(layers: Sequence[LayerSeen]) -> list[str]:
    most = max(layer.num_prefix for layer in layers)
    return ["The class token (or registers) has no place in the image and is not drawn."] * (most > 0)


def _left_out(layers: Sequence[LayerSeen], drawn: Sequence[LayerSeen]) -> list[str]:
    number = len(layers) - len(drawn)
    return [f"The first {number} layers are not drawn: ask for them by --layers."] * (number > 0)


def _rows(seen: Seen, layer: LayerSeen, place: int) -> list[Row]:
    names = [seen.class_names[values[place]] for values in (seen.labels, seen.predicted)]
    rows: list[Row] = []
    for token in range(layer.num_prefix, layer.expert.shape[1]):
        row, column = divmod(token - layer.num_prefix, layer.grid[1])
        values = (layer.gate[place, token], layer.slots[place, token])
        expert = int(layer.expert[place, token])
        rows.append((place, *names, layer.name, row, column, expert, *map(float, values)))
    return rows
