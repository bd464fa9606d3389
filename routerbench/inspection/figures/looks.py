"""How experts and layers are told apart, by the colour-blind and in black and white too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from routerbench.figures.marks import COLOURS, LINES
from routerbench.figures.style import INK, MUTED, PAPER, short

# Okabe and Ito's, but for their black, which on an image is a shadow: instead of it Tol's wine.
EXPERT_COLOURS = (*COLOURS, "#F0E442", "#882255")
EXPERT_HATCHES = ("", "///", "...", "\\\\\\", "+++", "---", "ooo", "|||")
DROPPED_HATCH = "xxxx"
MOST_COLUMNS = 9
MOST_LETTERS = 70  # below a picture, side by side
Item = TypeVar("Item")


@dataclass(frozen=True)
class Look:
    """The colour of an expert, and the hatch that parts it from those of the same colour."""

    colour: str
    hatch: str


def look_of(expert: int) -> Look:
    """How this expert is drawn in every picture; its number stands beside it wherever there is room."""
    cycle, colour = divmod(expert, len(EXPERT_COLOURS))
    return Look(EXPERT_COLOURS[colour], EXPERT_HATCHES[cycle % len(EXPERT_HATCHES)])


def line_of(number: int) -> dict[str, Any]:
    """Colour and dashes of the line of an expert or a layer of this number."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}


def expert_patches(num_experts: int, dropped: bool) -> list[Patch]:
    """A patch for every expert, and one for the tokens that no slot holds."""
    patches = [
        Patch(facecolor=look_of(expert).colour, hatch=look_of(expert).hatch, edgecolor=INK, linewidth=0.3)
        for expert in range(num_experts)
    ]
    return patches + [Patch(facecolor=PAPER, hatch=DROPPED_HATCH, edgecolor=INK, linewidth=0.3)] * dropped


def expert_legend(figure: Figure, num_experts: int, dropped: bool) -> None:
    """Say above the figure which look is which expert's."""
    names = [str(expert) for expert in range(num_experts)] + ["dropped"] * dropped
    columns = min(len(names), MOST_COLUMNS)
    figure.legend(
        in_lines(expert_patches(num_experts, dropped), columns),
        in_lines(names, columns),
        loc="upper center",
        ncols=columns,
        title="expert",
        title_fontsize=8,
        fontsize=8,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        labelcolor=MUTED,
    )


def in_lines(items: Sequence[Item], columns: int) -> list[Item]:
    """Legend entries reordered so that matplotlib, which fills columns, shows them row by row."""
    return [item for column in range(columns) for item in items[column::columns]]


def name_layers(axes: Axes, names: Sequence[str]) -> None:
    """The layers below a picture of one column each, slanted where they would run into each other."""
    labels = [short(name, 24) for name in names]
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    fits = len(labels) * max(map(len, labels)) <= MOST_LETTERS
    axes.set_xticks(range(len(labels)), labels, size=8, **({} if fits else slanted))


def whole_numbers(axes: Axes, columns: int, rows: int) -> None:
    """Ticks at the first and last column and row of a map, and at all where they are few."""
    for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        axis.set_ticks(list(range(count)) if count <= 8 else [0, count - 1])
    axes.tick_params(length=0)
