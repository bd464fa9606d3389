"""Which experts serve the patches at which place of the image."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from routerbench.figures.picture import Picture
from routerbench.figures.style import WIDTH_INCHES, drawing, short
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.said import Numbers, chance, interval
from routerbench.inspection.figures.tones import TWICE, draw_tones, even_share_key
from routerbench.inspection.seeing.seen import LayerSeen

MOST_COLUMNS = 8
WORDS = (
    "How often each expert serves the patch at each place of the image, over an even share among the "
    "experts, in the images where the patch is served; with several experts that with the largest gate "
    "counts."
)


def share_by_position(layer: LayerSeen) -> Float[np.ndarray, "T E"]:
    """Of the images in which a token is served, those in which each expert does, over an even share."""
    counts = np.stack([(layer.expert == expert).sum(0) for expert in range(layer.num_experts)], 1)
    served = counts.sum(1, keepdims=True)
    return layer.num_experts * counts / np.where(served > 0, served, np.nan)


def position_maps(layer: LayerSeen, numbers: Numbers) -> Drawn:
    """A small map of the image for every expert of a layer."""
    shares = share_by_position(layer)
    name = f"{layer.name}/position"
    words = [WORDS, f"The position explains {interval(numbers, name)} of the routing's entropy"]
    by_chance = chance(numbers, name)
    words[-1] += f" ({by_chance})." if by_chance else "."
    picture = Picture(
        f"Experts by position: {short(layer.name)}",
        " ".join([*words, *_prefix_words(layer, shares)]),
        _figure(layer, shares),
    )
    columns = ("layer", "token", "row", "column", "expert", "images_over_even_share")
    return Drawn(f"experts_by_position_{layer.name}", picture, columns, _rows(layer, shares))


def _figure(layer: LayerSeen, shares: Float[np.ndarray, "T E"]) -> Figure:
    count = layer.num_experts
    columns = min(count, MOST_COLUMNS)
    lines = -(-count // columns)
    side = min(WIDTH_INCHES / columns, 1.5)
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, (side + 0.15) * lines + 0.35))
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in grid[count:]:
            axes.set_visible(False)
        for expert, axes in enumerate(grid[:count]):
            draw_tones(axes, shares[layer.num_prefix :, expert].reshape(layer.grid), TWICE)
            axes.set_aspect("equal")
            axes.set_title(f"expert {expert}" if expert == 0 else str(expert), size=8)
            axes.set_xticks([])
            axes.set_yticks([])
        even_share_key(figure)
    return figure


def _prefix_words(layer: LayerSeen, shares: Float[np.ndarray, "T E"]) -> list[str]:
    """What becomes of the tokens that have no place in the image."""
    words = []
    for token in range(layer.num_prefix):
        share = np.nan_to_num(shares[token]) / layer.num_experts
        strongest = [int(expert) for expert in np.argsort(-share, kind="stable")[:3] if share[expert] > 0]
        told = ", ".join(f"{expert} in {100 * share[expert]:.0f} %" for expert in strongest)
        which = "The class token" if layer.num_prefix == 1 else f"Prefix token {token}"
        served = f"is served by expert {told} of the images" if strongest else "is always dropped"
        words.append(f"{which}, which has no place on the map, {served}.")
    return words


def _rows(layer: LayerSeen, shares: Float[np.ndarray, "T E"]) -> list[Row]:
    rows: list[Row] = []
    for (token, expert), value in np.ndenumerate(shares):
        place = token - layer.num_prefix
        where = divmod(place, layer.grid[1]) if place >= 0 else ("prefix", "prefix")
        rows.append((layer.name, token, *where, expert, float(value)))
    return rows
