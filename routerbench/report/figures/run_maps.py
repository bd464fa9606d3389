"""Which classes each expert of a single run serves, layer by layer."""

from pathlib import Path

from routerbench.figures.margins import set_margins
from routerbench.figures.order import in_natural_order
from routerbench.figures.panels import panel_title, panels
from routerbench.figures.style import PAPER, drawing
from routerbench.report.figures.maps import MAX_ROWS, draw_map, read_maps

DOTS_PER_INCH = 150


def write_maps(folder: Path, path: Path) -> bool:
    """Draw the maps of the run's MoE layers, the last ones of many, as PNG; whether there are any."""
    maps = read_maps(folder)
    layers = sorted(maps, key=in_natural_order)[-MAX_ROWS:]
    if not layers:
        return False
    with drawing():
        figure, grid = panels(len(layers), 1.6, "expert", "class", share=False)
        for axes, layer in zip(grid, layers, strict=True):
            draw_map(axes, panel_title(layer), maps[layer])
        set_margins(figure)
        figure.savefig(path, format="png", dpi=DOTS_PER_INCH, facecolor=PAPER)
    return True
