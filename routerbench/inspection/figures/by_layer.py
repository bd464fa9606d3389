"""How evenly the experts of each layer are loaded, and what explains who is chosen."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from routerbench.figures.marks import COLOURS, SHAPES
from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, MUTED, WIDTH_INCHES, drawing, short
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.looks import name_layers
from routerbench.inspection.figures.said import Numbers, number
from routerbench.inspection.figures.tones import DARKEST, TWICE, draw_numbers, tone_key
from routerbench.inspection.seeing.seen import LayerSeen

LOAD = (
    "Slots that each expert fills on the test images over the mean of its layer: 1 is an even load, 0 an "
    "expert that no token reaches."
)
SPECIALISATION = (
    "The share of the routing's entropy in each layer that the class of the image explains, and the place of "
    "the patch in it; and how much of the next MoE layer's routing the expert that a patch has here "
    "explains. 0 is chance, 1 is everything. Bars: 95 % intervals."
)
WHATS = {"class": "class", "position": "position", "next_layer": "for the next layer: the expert here"}


def load_map(layers: Sequence[LayerSeen]) -> Drawn:
    """A row a layer and a column an expert."""
    most = max(layer.num_experts for layer in layers)
    loads = np.full((len(layers), most), np.nan)
    for row, layer in enumerate(layers):
        load = layer.share.sum(0, dtype=np.float64)
        loads[row, : layer.num_experts] = load / max(load.mean(), 1e-12)
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 0.28 * len(layers) + 0.95))
        axes = figure.subplots()
        draw_numbers(axes, loads, TWICE, 2)
        axes.set_yticks(range(len(layers)), [short(layer.name, 24) for layer in layers], color=INK)
        axes.set_xticks(range(most) if most <= 16 else [0, most - 1])
        axes.set_xlabel("expert")
        tone_key(figure, {"none": 0.0, "the mean": DARKEST / 2, "twice that or more": DARKEST})
    rows: list[Row] = [
        (layer.name, expert, float(loads[row, expert]))
        for row, layer in enumerate(layers)
        for expert in range(layer.num_experts)
    ]
    columns = ("layer", "expert", "slots_over_mean")
    return Drawn("experts_by_layer", Picture("Load of the experts by layer", LOAD, figure), columns, rows)


def specialisation_by_layer(layers: Sequence[LayerSeen], numbers: Numbers) -> Drawn | None:
    """Specialisation with its interval, layer by layer; None where nothing of it was measured."""
    rows = [row for layer in layers for what in WHATS for row in _told(numbers, layer.name, what)]
    if not rows:
        return None
    names = [layer.name for layer in layers]
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 2.4))
        axes = figure.subplots()
        axes.axhline(0, color=MUTED, linewidth=0.7)
        for place, (what, label) in enumerate(WHATS.items()):
            own = [row for row in rows if row[1] == what]
            if not own:
                continue
            at = [names.index(str(row[0])) + 0.15 * (place - 1) for row in own]
            value, low, high = (np.array([row[column] for row in own], float) for column in (2, 3, 4))
            reach = np.nan_to_num(np.maximum([value - low, high - value], 0))
            axes.errorbar(
                at,
                value,
                reach,
                fmt=SHAPES[place],
                color=COLOURS[place],
                markersize=4,
                capsize=2,
                label=label,
            )
        name_layers(axes, names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylabel("explained share of entropy")
        axes.grid(axis="y")
        figure.legend(loc="upper center", ncols=3, frameon=False, fontsize=8, labelcolor=MUTED)
    columns = ("layer", "explained_by", "share", "low", "high", "by_chance", "p")
    picture = Picture("Specialisation by layer", SPECIALISATION, figure)
    return Drawn("specialisation_by_layer", picture, columns, rows)


def _told(numbers: Numbers, layer: str, what: str) -> list[Row]:
    name = f"{layer}/{what}"
    values = [number(numbers, name + ending) for ending in ("", "_low", "_high", "_null", "_p")]
    return [(layer, what, *values)] if np.isfinite(values[0]) else []
