"""Images whose patches have the colour of the expert that serves them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.looks import DROPPED_HATCH, EXPERT_COLOURS, expert_legend, look_of
from routerbench.inspection.figures.shown import (
    CAPTION_INCHES,
    SIDE_INCHES,
    ShownImages,
    caption,
    columns_of,
    grey,
)
from routerbench.inspection.seen import LayerSeen, Seen
from routerbench.report.figures.picture import Picture
from routerbench.report.figures.style import INK, WIDTH_INCHES, drawing

MOST_LAYERS = 4
IMAGES_A_PICTURE = 6
MOST_NUMBERED = 10  # patches a row that have room for a number
LEAST_OPACITY, MORE_OPACITY = 0.35, 0.55
WORDS = (
    "Each patch has the colour and the number of the expert that serves it (of several that with the largest "
    "gate), the stronger the larger its gate; hatched patches are dropped: no expert serves them. Columns "
    "are layers. Left: the image, its label, and what the model made of it."
)


def patches_by_expert(seen: Seen, layers: Sequence[LayerSeen], shown: ShownImages) -> list[Drawn]:
    """Pictures of a few images each, a row an image and a column a layer, of which the last are drawn."""
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
    with drawing():
        figure, grid = image_grid(len(part), columns_of([layer.name for layer in layers]))
        for line, place, pixels in zip(grid, part.places, part.pixels, strict=True):
            draw_image(line[0], pixels, caption(seen, place))
            for axes, layer in zip(line[1:], layers, strict=True):
                _draw(axes, layer, int(place), grey(pixels), _range(layer, shown))
        expert_legend(figure, num_experts, dropped)
    columns = ("image", "label", "predicted", "layer", "row", "column", "expert", "gate", "slots")
    rows = [row for place in part.places for layer in layers for row in _rows(seen, layer, int(place))]
    return Drawn(f"images_{number}", Picture("Patches by expert", words, figure), columns, rows)


def image_grid(num_images: int, titles: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    """A line of small pictures for every image, with titles above the columns."""
    side = min(SIDE_INCHES, (WIDTH_INCHES - CAPTION_INCHES) / len(titles))
    figure = Figure(figsize=(WIDTH_INCHES, (side + 0.08) * num_images + 0.75), layout="constrained")
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


def _draw(
    axes: Axes, layer: LayerSeen, place: int, light: Float[np.ndarray, "H W"], gates: tuple[float, float]
) -> None:
    rows, columns = layer.grid
    expert = layer.expert[place, layer.num_prefix :].reshape(layer.grid)
    gate = layer.gate[place, layer.num_prefix :].reshape(layer.grid)
    extent = (0, columns, rows, 0)
    axes.imshow(light, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="none", aspect="equal")
    axes.imshow(_coloured(expert, gate, gates), extent=extent, interpolation="none", aspect="equal")
    for hatch in sorted({look_of(int(one)).hatch for one in np.unique(expert[expert >= 0])} - {""}):
        alike = [one for one in np.unique(expert[expert >= 0]) if look_of(int(one)).hatch == hatch]
        axes.add_patch(_hatched(np.isin(expert, alike), hatch))
    if (expert < 0).any():
        axes.add_patch(_hatched(expert < 0, DROPPED_HATCH))
    if max(layer.grid) <= MOST_NUMBERED:
        for (row, column), one in np.ndenumerate(expert):
            if one >= 0:
                axes.text(column + 0.5, row + 0.5, str(one), ha="center", va="center", size=6, color=INK)


def _coloured(
    expert: np.ndarray, gate: Float[np.ndarray, "rows columns"], gates: tuple[float, float]
) -> Float[np.ndarray, "rows columns 4"]:
    """The colours of the experts, as opaque as their gates are large; a dropped patch is without."""
    low, high = gates
    strength = np.clip((gate - low) / max(high - low, 1e-12), 0, 1)
    colours = np.array([to_rgb(colour) for colour in EXPERT_COLOURS])[expert % len(EXPERT_COLOURS)]
    opacity = np.where(expert >= 0, LEAST_OPACITY + MORE_OPACITY * strength, 0)
    return np.concatenate([colours, opacity[..., None]], -1)


def _hatched(where: Bool[np.ndarray, "rows columns"], hatch: str) -> PathPatch:
    """One hatched area of all these patches."""
    squares = [
        Path([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)], closed=True)
        for y, x in np.argwhere(where)
    ]
    return PathPatch(Path.make_compound_path(*squares), fill=False, hatch=hatch, edgecolor=INK, linewidth=0.2)


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
