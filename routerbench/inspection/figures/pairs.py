"""How alike two experts of a layer are: in whom they serve, in their weights and outputs, and by depth."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.figures.marks import COLOURS, LINES, SHAPES
from routerbench.figures.panels import MAX_COLUMNS, panels
from routerbench.figures.picture import Picture
from routerbench.figures.style import MUTED, WIDTH_INCHES, drawing, short
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.looks import name_layers, whole_numbers
from routerbench.inspection.figures.said import Numbers, number
from routerbench.inspection.figures.tones import DARKEST, draw_numbers, draw_tones, tone_key
from routerbench.inspection.seeing.seen import LayerSeen

Matrix = Float[np.ndarray, "E E"]
TOGETHER = (
    "Of the tokens that an expert serves (row), the fraction that another one serves too (column). The "
    "diagonal is 1."
)
ALIKE = {
    "weight_similarity": "the weights of two experts, all tensors of an expert as one vector",
    "output_similarity": "the outputs of two experts for the same tokens, mean over a sample of them",
}
BY_DEPTH = (
    "The mean over all pairs of different experts, layer by layer: cosine similarity of their weights and of "
    "their outputs for the same tokens, and the overlap of the images that they serve (1: in every image as "
    "many tokens each; 0: never the same image)."
)
MOST_NUMBERS = 17  # in a row of the picture
KINDS = {"weight_similarity": "weights", "output_similarity": "outputs", "image_similarity": "images"}


def together(layers: Sequence[LayerSeen]) -> Drawn | None:
    """Which experts serve the same tokens; None where no token has two."""
    if all(np.allclose(layer.together, np.diag(np.diag(layer.together))) for layer in layers):
        return None
    matrices = {
        layer.name: layer.together / np.maximum(np.diag(layer.together)[:, None], 1) for layer in layers
    }
    figure = _matrices(layers, matrices, "the other expert", "expert", "no token", "every token")
    picture = Picture("Experts that serve the same tokens", TOGETHER, figure)
    return Drawn("experts_together", picture, ("layer", "expert", "other", "fraction"), _rows(matrices))


def similarity(layers: Sequence[LayerSeen], kind: str) -> Drawn:
    """How similar the experts of each layer are by `weight_similarity` or `output_similarity`."""
    matrices = {layer.name: getattr(layer, kind) for layer in layers}
    figure = _matrices(layers, matrices, "expert", "expert", "0 or less", "1")
    words = f"Cosine similarity of {ALIKE[kind]}: 1 is the same direction, 0 none in common."
    picture = Picture(f"Similarity of the experts' {KINDS[kind]}", words, figure)
    return Drawn(f"expert_{kind}", picture, ("layer", "expert", "other", "cosine"), _rows(matrices))


def similarity_by_depth(layers: Sequence[LayerSeen], numbers: Numbers) -> Drawn | None:
    """The mean similarity of two experts, layer by layer; None where it was not measured."""
    values = {kind: np.array([number(numbers, f"{layer.name}/{kind}") for layer in layers]) for kind in KINDS}
    known = {kind: value for kind, value in values.items() if np.isfinite(value).any()}
    if not known:
        return None
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 2.3))
        axes = figure.subplots()
        for place, (kind, value) in enumerate(known.items()):
            (line,) = axes.plot(
                range(len(layers)), value, marker=SHAPES[place], label=KINDS[kind], markersize=4
            )
            line.set(color=COLOURS[place], linestyle=LINES[place])
        name_layers(axes, [layer.name for layer in layers])
        axes.set_ylabel("similarity of two experts")
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=8, labelcolor=MUTED)
    rows: list[Row] = [
        (layer.name, KINDS[kind], float(value[place]))
        for kind, value in known.items()
        for place, layer in enumerate(layers)
    ]
    picture = Picture("Similarity of the experts by depth", BY_DEPTH, figure)
    return Drawn("similarity_by_depth", picture, ("layer", "of", "mean_similarity"), rows)


def _matrices(
    layers: Sequence[LayerSeen], matrices: Mapping[str, Matrix], x: str, y: str, least: str, most: str
) -> Figure:
    with drawing():
        figure, grid = panels(len(layers), 1.7 if len(layers) > 2 else 2.6, x, y, share=False)
        for axes, layer in zip(grid, layers, strict=True):
            _draw(axes, matrices[layer.name], min(len(layers), MAX_COLUMNS))
            axes.set_title(short(layer.name, 24), size=8)
            whole_numbers(axes, layer.num_experts, layer.num_experts)
        tone_key(figure, {least: 0.0, most: DARKEST})
    return figure


def _draw(axes: Axes, matrix: Matrix, beside: int) -> None:
    """With numbers where there is room for them, so many matrices standing beside each other."""
    if beside * len(matrix) > MOST_NUMBERS:
        draw_tones(axes, matrix, 1.0, DARKEST)
    else:
        draw_numbers(axes, matrix, 1.0, 2)


def _rows(matrices: Mapping[str, Matrix]) -> list[Row]:
    return [
        (name, one, other, float(value))
        for name, matrix in matrices.items()
        for (one, other), value in np.ndenumerate(matrix)
    ]
