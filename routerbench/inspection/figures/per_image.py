"""Experts of an image, and patches of an image by expert (Videau et al. 2025, Fig. 8)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from routerbench.figures.panels import panels
from routerbench.figures.picture import Picture
from routerbench.figures.style import ACCENT, FAINT, MUTED, drawing, short
from routerbench.inspection.figures.drawn import Drawn, Row
from routerbench.inspection.figures.looks import in_lines, line_of
from routerbench.inspection.seeing.seen import LayerSeen

PATCHES = (
    "The fraction of the images of which an expert has at most so many patches, a line an expert; a line "
    "that starts high is of an expert that many images do not meet. With several experts a patch that with "
    "the largest gate counts."
)
EXPERTS = (
    "How many experts have at least one token of an image, and in what fraction of the images; in the title "
    "the mean."
)
MOST_NAMED = 16


def patches_per_image(layer: LayerSeen) -> Int[np.ndarray, "N E"]:
    """How many patches of each image each expert serves, class token and registers left out."""
    patches = layer.expert[:, layer.num_prefix :]
    return np.stack([(patches == expert).sum(1) for expert in range(layer.num_experts)], 1)


def patches_cdf(layers: Sequence[LayerSeen]) -> Drawn:
    """The distribution of the patches of an image that an expert has."""
    rows: list[Row] = []
    with drawing():
        figure, grid = panels(len(layers), 1.9, "patches of an image", "fraction of images", share=False)
        for axes, layer in zip(grid, layers, strict=True):
            counts = patches_per_image(layer)
            at = np.arange(counts.max() + 2)
            for expert in range(layer.num_experts):
                below = np.searchsorted(np.sort(counts[:, expert]), at, side="right") / len(counts)
                axes.step(at, below, where="post", linewidth=1.2, label=str(expert), **_line(expert))
                rows += [(layer.name, expert, int(x), float(y)) for x, y in zip(at, below, strict=True)]
            axes.set_title(short(layer.name, 24), size=8)
            axes.set_ylim(0, 1.02)
            axes.set_xlim(0, at[-1])
            axes.locator_params(axis="x", integer=True)
            axes.grid(axis="y")
        handles, names = grid[0].get_legend_handles_labels()
        columns = min(len(names), 8)
        figure.legend(
            in_lines(handles[:MOST_NAMED], columns),
            in_lines(names[:MOST_NAMED], columns),
            title="expert",
            title_fontsize=8,
            loc="upper center",
            ncols=columns,
            fontsize=8,
            frameon=False,
            labelcolor=MUTED,
        )
    words = f"{PATCHES} Experts from {MOST_NAMED} on are grey." if len(names) > MOST_NAMED else PATCHES
    columns = ("layer", "expert", "patches", "fraction_of_images_with_at_most_these")
    return Drawn("patches_per_image", Picture("Patches of an image by expert", words, figure), columns, rows)


def _line(expert: int) -> dict[str, Any]:
    """The look of an expert that the legend names; all others are grey."""
    return line_of(expert) if expert < MOST_NAMED else {"color": FAINT, "zorder": 1}


def experts_per_image(layers: Sequence[LayerSeen]) -> Drawn:
    """The distribution of the number of experts that an image meets."""
    rows: list[Row] = []
    with drawing():
        figure, grid = panels(len(layers), 1.6, "experts of an image", "fraction of images", share=False)
        for axes, layer in zip(grid, layers, strict=True):
            met = (layer.share > 0).sum(1)
            fraction = np.bincount(met, minlength=layer.num_experts + 1) / len(met)
            axes.bar(range(len(fraction)), fraction, color=ACCENT)
            axes.set_title(f"{short(layer.name, 24)}\nmean {met.mean():.1f} of {layer.num_experts}", size=8)
            rows += [(layer.name, count, float(value)) for count, value in enumerate(fraction)]
    columns = ("layer", "experts", "fraction_of_images")
    return Drawn("experts_per_image", Picture("Experts that an image meets", EXPERTS, figure), columns, rows)
