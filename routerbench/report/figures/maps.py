"""Which classes each expert serves: maps of a row's first seed, where they are stored."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from routerbench.arrays import UNREADABLE, open_arrays, read_array
from routerbench.figures.order import in_natural_order
from routerbench.figures.panels import panel_title, panels
from routerbench.figures.picture import Picture
from routerbench.figures.style import FAINT, drawing
from routerbench.figures.tint import tinted
from routerbench.found import number_at
from routerbench.report.boards.board import Board
from routerbench.report.boards.evaluated import INSPECT
from routerbench.report.boards.modes import TRAINED
from routerbench.report.boards.rows import Row

MAX_ROWS = 8
FILE = "routing.npz"
MAP = "/share_by_class"
NMI_WORDS = (
    " NMI: normalised mutual information of class and expert in that layer, corrected for chance (1: the "
    "class tells the expert, 0: it tells nothing)."
)

Map = NDArray[np.floating]  # classes and experts


def expert_maps(board: Board) -> Picture | None:
    """How much of each class every expert of the last MoE layer serves; None where no run has stored it."""
    found = [(row, *last) for row in board.rows if (last := _last_map(row)) is not None]
    if not found:
        return None
    shown = found[:MAX_ROWS]
    with drawing():
        figure, grid = panels(len(shown), 1.6, "expert", "class", share=False)
        for axes, (row, layer, shares, nmi) in zip(grid, shown, strict=True):
            title = panel_title(f"{row.label} {layer}")
            draw_map(axes, title if nmi is None else f"{title}\nNMI {nmi:.3f}", shares)
    told = any(nmi is not None for *_, nmi in shown)
    return Picture("Experts by class", _words(len(found) - len(shown), told), figure)


def _words(left_out: int, told: bool) -> str:
    words = (
        "What a token of a class (rows) has of each expert (columns) in the last MoE layer, in the first "
        "seed that stored it: the middle tone is an even share, the strongest twice that or more."
    )
    words += NMI_WORDS if told else ""
    return words + (f" The last {left_out} rows are not drawn." if left_out else "")


def _last_map(row: Row) -> tuple[str, Map, float | None] | None:
    """The last layer, its map and its mutual information, of the first seed that has one."""
    for run in row.runs:
        maps = read_maps(run["folder"]) if "folder" in run else {}
        if maps:
            last = max(maps, key=in_natural_order)
            found = run.get("evaluations", {})
            return last, maps[last], number_at(found, INSPECT, TRAINED, f"{last}/class")
    return None


def read_maps(folder: Path) -> Mapping[str, Map]:
    """The maps of a run by layer; without any where the file is missing or damaged."""
    try:
        with open_arrays(folder / FILE) as file:
            if file.testzip() is not None:
                return {}
            names = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(f"{MAP}.npy")]
            maps = {name.removesuffix(MAP): read_array(file, name, (None, None), "f") for name in names}
    except UNREADABLE:
        return {}
    return {name: shares for name, shares in maps.items() if shares.size}


def draw_map(axes: Axes, title: str, shares: Map) -> None:
    """Draw the map of one layer, a row a class and a column an expert."""
    known = np.nan_to_num(np.asarray(shares, dtype=np.float64), posinf=0.0, neginf=0.0)
    even = max(float(known.mean()), 1e-12)
    axes.imshow(tinted(np.clip(known / even / 2, 0, 1)), interpolation="none", aspect="auto")
    axes.set_title(title, size=8)
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=FAINT)
    for axis, count in ((axes.xaxis, shares.shape[1]), (axes.yaxis, shares.shape[0])):
        axis.set_ticks([0, count - 1] if count > 1 else [0])
