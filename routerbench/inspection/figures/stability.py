"""How far the experts of two seeds, or of two moments of one training, serve the same tokens."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from routerbench.figures.margins import legend_room
from routerbench.figures.marks import COLOURS, SHAPES
from routerbench.figures.picture import Picture
from routerbench.figures.style import MUTED, WIDTH_INCHES, drawing, short
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.looks import line_of, name_layers
from routerbench.inspection.figures.said import Numbers, number

SEEDS = {
    "agreement": "patches with the same expert",
    "agreement_null": "the same by chance",
    "adjusted_information": "information in common",
}
WORDS = (
    "Two runs that differ in their seed alone, on the same images: the experts of one are paired with those "
    "of the other so that as many patches as possible have the same expert. Shown is the fraction that then "
    "has, what remains of it where the images, or the patches of an image, are exchanged (whichever is "
    "more), and the information that the two routings have in common (0 is chance, 1 the same routing); mean "
    "over the pairs of {count} seeds."
)
MOMENTS = (
    "The fraction of the tokens whose first choice is that of the trained model already, at the checkpoints "
    "that the run kept."
)


def over_seeds(layers: Sequence[str], numbers: Numbers, num_seeds: int) -> Drawn | None:
    """Agreement between seeds by layer, of `<layer>/<what>`; None where nothing of it was measured."""
    rows: list[Row] = [
        (layer, what, value)
        for layer in layers
        for what in SEEDS
        if np.isfinite(value := number(numbers, f"{layer}/{what}"))
    ]
    if not rows:
        return None
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 2.3))
        axes = figure.subplots()
        for place, (what, label) in enumerate(SEEDS.items()):
            own = [row for row in rows if row[1] == what]
            at = [layers.index(str(row[0])) + 0.1 * (place - 1) for row in own]
            values = [float(row[2]) for row in own]
            axes.scatter(at, values, s=26, c=COLOURS[place], marker=SHAPES[place], label=label)
        name_layers(axes, layers)
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.set_ylim(min(0, axes.get_ylim()[0]), 1.02)
        axes.set_ylabel("fraction")
        axes.grid(axis="y")
        figure.legend(loc="upper center", ncols=3, frameon=False, fontsize=8, labelcolor=MUTED)
    picture = Picture("Stability over seeds", WORDS.format(count=num_seeds), figure)
    return Drawn("stability_over_seeds", picture, ("layer", "what", "value"), rows)


def over_checkpoints(agreement: Mapping[int, Mapping[str, float]]) -> Drawn | None:
    """Agreement of each kept checkpoint, by its step, with the trained model; None where none was kept."""
    if not agreement:
        return None
    layers = list(next(iter(agreement.values())))
    names = [short(layer, 24) for layer in layers]
    columns, of_legend = legend_room(names)
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 2.1 + of_legend))
        axes = figure.subplots()
        for place, (layer, name) in enumerate(zip(layers, names, strict=True)):
            values = [by_layer[layer] for by_layer in agreement.values()]
            axes.plot(
                list(agreement),
                values,
                marker=SHAPES[place % len(SHAPES)],
                label=name,
                **line_of(place),
            )
        axes.set_xlabel("step")
        axes.set_ylabel("fraction of tokens")
        axes.set_ylim(0, 1.02)
        axes.grid(axis="y")
        figure.legend(loc="upper center", ncols=columns, frameon=False, fontsize=8, labelcolor=MUTED)
    rows: list[Row] = [
        (layer, step, value) for step, own in agreement.items() for layer, value in own.items()
    ]
    picture = Picture("Stability over training", MOMENTS, figure)
    return Drawn("stability_over_training", picture, ("layer", "step", "fraction"), rows)
