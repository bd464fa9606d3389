"""Which experts serve the tokens of which class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from routerbench.figures.panels import MAX_COLUMNS, panels
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, drawing, short
from routerbench.inspection.figures.drawn import Drawn
from routerbench.inspection.figures.looks import whole_numbers
from routerbench.inspection.figures.said import Numbers, beside
from routerbench.inspection.figures.tones import TWICE, draw_tones, even_share_key
from routerbench.inspection.seeing.seen import LayerSeen, Seen

MOST_NAMES = 30
WORDS = (
    "How many of the served tokens of a class (rows) each expert has (columns), over an even share among the "
    "experts; of several experts of a token that with the largest gate counts. In the title: the share of "
    "the routing's entropy that the class explains, from 0 (nothing) to 1 (all), corrected for chance, with "
    "its 95 % interval; and what labels explain that are dealt out at random."
)


def share_by_class(seen: Seen, layer: LayerSeen) -> Float[np.ndarray, "classes E"]:
    """Of the served tokens of a class, those of each expert, over an even share; NaN: it has none."""
    image, token = np.nonzero(layer.expert >= 0)
    counts = np.zeros((len(seen.class_names), layer.num_experts))
    np.add.at(counts, (seen.labels[image], layer.expert[image, token]), 1)
    total = counts.sum(1, keepdims=True)
    return layer.num_experts * counts / np.where(total > 0, total, np.nan)


def class_maps(seen: Seen, layers: Sequence[LayerSeen], numbers: Numbers) -> Drawn:
    """A map for every layer, a row a class and a column an expert."""
    maps = {layer.name: share_by_class(seen, layer) for layer in layers}
    height = min(max(0.17 * len(seen.class_names), 1.2), 5) + 0.8
    with drawing():
        figure, grid = panels(len(layers), height, "expert", "", share=False)
        for place, (axes, layer) in enumerate(zip(grid, layers, strict=True)):
            draw_tones(axes, maps[layer.name], TWICE)
            axes.set_title(f"{short(layer.name, 24)}\n{beside(numbers, layer.name, 'class')}", size=7)
            whole_numbers(axes, layer.num_experts, len(seen.class_names))
            _name_classes(axes, seen.class_names, first=place % MAX_COLUMNS == 0)
        even_share_key(figure)
    rows = [
        (name, seen.class_names[label], expert, float(value))
        for name, values in maps.items()
        for (label, expert), value in np.ndenumerate(values)
    ]
    columns = ("layer", "class", "expert", "tokens_over_even_share")
    return Drawn("experts_by_class", Picture("Experts by class", WORDS, figure), columns, rows)


def _name_classes(axes: Axes, names: Sequence[str], first: bool) -> None:
    """The names of few classes, at the first panel of a row."""
    if len(names) <= MOST_NAMES:
        axes.set_yticks(range(len(names)), [short(name, 22) for name in names] if first else [], color=INK)
    elif first:
        axes.set_ylabel("class")
