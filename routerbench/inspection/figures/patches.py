"""One image whose patches have the colour of the expert that serves them."""

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from routerbench.inspection.figures.looks import DROPPED_HATCH, EXPERT_COLOURS, look_of
from routerbench.inspection.seeing.seen import LayerSeen

MOST_NUMBERED = 10  # patches a row that have room for a number
LEAST_OPACITY, MORE_OPACITY = 0.35, 0.55
FAINTER = 0.45  # a hatch behind a number
BLACK, WHITE = "#000000", "#ffffff"  # on an image, which is the same on a dark page


def draw_patches(
    axes: Axes, layer: LayerSeen, place: int, light: Float[np.ndarray, "H W"], gates: tuple[float, float]
) -> None:
    """Draw the patches of an image over how light it is.

    `gates` are the gate that has the weakest colour of its expert and the one that has the strongest.
    """
    rows, columns = layer.grid
    extent = (0, columns, rows, 0)
    expert = layer.expert[place, layer.num_prefix :].reshape(layer.grid)
    gate = layer.gate[place, layer.num_prefix :].reshape(layer.grid).astype(np.float64)
    colours = _coloured(expert, gate, gates)
    axes.imshow(light, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="none", aspect="equal")
    axes.imshow(colours, extent=extent, interpolation="none", aspect="equal")
    _hatch(axes, expert)
    if max(layer.grid) <= MOST_NUMBERED:
        for (row, column), one in np.ndenumerate(expert):
            if one >= 0:
                ink = _ink_on(colours[row, column])
                place_of = {"ha": "center", "va": "center", "in_layout": False}
                axes.text(column + 0.5, row + 0.5, str(one), size=6, color=ink, **place_of)


def _coloured(
    expert: Int[np.ndarray, "rows columns"],
    gate: Float[np.ndarray, "rows columns"],
    gates: tuple[float, float],
) -> Float[np.ndarray, "rows columns 4"]:
    """The colours of the experts, as opaque as their gates are large; a dropped patch is without."""
    low, high = gates
    strength = np.clip((gate - low) / max(high - low, 1e-12), 0, 1)
    colours = np.array([to_rgb(colour) for colour in EXPERT_COLOURS])[expert % len(EXPERT_COLOURS)]
    opacity = np.where(expert >= 0, LEAST_OPACITY + MORE_OPACITY * strength, 0)
    return np.concatenate([colours, opacity[..., None]], -1)


def _hatch(axes: Axes, expert: Int[np.ndarray, "rows columns"]) -> None:
    """Hatch the patches that are dropped, and those of experts that share their colour with another one."""
    hatches = {int(one): look_of(int(one)).hatch if one >= 0 else DROPPED_HATCH for one in np.unique(expert)}
    for hatch in sorted(set(hatches.values()) - {""}):
        alike = [one for one, own in hatches.items() if own == hatch]
        strength = 1.0 if hatch == DROPPED_HATCH else FAINTER
        axes.add_patch(_hatched(np.isin(expert, alike), hatch, strength))


def _ink_on(colour: Float[np.ndarray, "4"]) -> str:
    """Black or white, whichever stands out from this colour on a light image."""
    opacity = colour[3]
    light = opacity * (colour[:3] @ np.array([0.2126, 0.7152, 0.0722])) + (1 - opacity) * 0.7
    return BLACK if light > 0.4 else WHITE


def _hatched(where: Bool[np.ndarray, "rows columns"], hatch: str, strength: float) -> PathPatch:
    """One hatched area of all these patches."""
    squares = [
        Path([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)], closed=True)
        for y, x in np.argwhere(where)
    ]
    return PathPatch(
        Path.make_compound_path(*squares), fill=False, hatch=hatch, edgecolor=(BLACK, strength), linewidth=0.2
    )
