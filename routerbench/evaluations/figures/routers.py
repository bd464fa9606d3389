"""Points lost by replacing routers, all at once and layer by layer."""

from collections.abc import Iterator, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.evaluations.measurement import Result
from routerbench.figures.marks import COLOURS, SHAPES
from routerbench.figures.picture import Picture
from routerbench.figures.style import FAINT, INK, MUTED, WIDTH_INCHES, drawing, short

COLUMNS = ("replacement", "layer", "top1_lost_points", "low", "high", "first_choice_agreement")
ALL = "all layers"
INCHES_PER_LINE = 0.17


def replacement_picture(results: Mapping[str, Result]) -> Picture:
    """The top-1 accuracy that each replacement costs, with its interval; a mark for each layer."""
    replacements = list(dict.fromkeys(replacement for replacement, _ in map(_parts, results)))
    layers = sorted({layer for _, layer in map(_parts, results)}, key=_all_first)
    step = len(layers) + 1  # lines of a replacement, the last of them empty
    with drawing():
        height = INCHES_PER_LINE * step * len(replacements) + 1.0
        figure = Figure(figsize=(WIDTH_INCHES, height))
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for number, layer in enumerate(layers):
            _draw_layer(axes, results, replacements, number, layer, step)
        places = [step * place + (len(layers) - 1) / 2 for place in range(len(replacements))]
        axes.set_yticks(places, [short(replacement) for replacement in replacements], color=INK)
        axes.set_ylim(step * len(replacements) - 0.5, -1)
        axes.set_xlabel("points of top-1 accuracy lost, with 95 % interval over images")
        axes.grid(axis="x", color=FAINT)
        figure.legend(loc="lower left", ncols=4, frameon=False, fontsize=8)
    return Picture("What routers are worth at test time", in_words(results), figure)


def replacement_rows(results: Mapping[str, Result]) -> Iterator[tuple[str, str, float, float, float, float]]:
    """The numbers of the picture, by `COLUMNS`."""
    for mode, result in results.items():
        points = [result[f"top1_lost_points{end}"] for end in ("", "_low", "_high")]
        yield *_parts(mode), *points, result["first_choice_agreement"]


def in_words(results: Mapping[str, Result]) -> str:
    """What replacing the routers of all layers costs, replacement by replacement."""
    costs = [
        f"{replacement} costs {result['top1_lost_points']:.1f} points"
        for (replacement, layer), result in ((_parts(mode), result) for mode, result in results.items())
        if layer == ALL
    ]
    return f"In place of the trained routers, {'; '.join(costs)}."


def _draw_layer(
    axes: Axes, results: Mapping[str, Result], replacements: list[str], number: int, layer: str, step: int
) -> None:
    colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
    label: str | None = layer
    for mode, result in results.items():
        replacement, own = _parts(mode)
        if own != layer:
            continue
        place = step * replacements.index(replacement) + number
        low, high = result["top1_lost_points_low"], result["top1_lost_points_high"]
        axes.plot([low, high], [place, place], color=colour, linewidth=1.2)
        axes.plot([result["top1_lost_points"]], [place], shape, color=colour, markersize=4.5, label=label)
        label = None  # once in the legend


def _parts(mode: str) -> tuple[str, str]:
    """Replacement and layer of a mode: `random blocks.5`, `random`, `random blocks.5 seed=1`."""
    replacement, *words = mode.split()
    layer = next((word for word in words if "=" not in word), ALL)
    further = "".join(f" {word}" for word in words if word != layer)
    return replacement + further, layer


def _all_first(layer: str) -> tuple[bool, list[int], str]:
    """Layers in the order of the forward pass, after all of them at once."""
    return layer != ALL, [int(part) for part in layer.split(".") if part.isdigit()], layer
