"""Accuracy by grouping of the test images, for every group."""

from collections.abc import Iterator, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.evaluations.measurement import Result
from routerbench.figures.picture import Picture
from routerbench.figures.style import ACCENT, FAINT, INK, WIDTH_INCHES, WORSE, drawing, short
from routerbench.found import MOST_POINTS

COLUMNS = ("mode", "grouping", "top1")


def sensitivity_picture(results: Mapping[str, Result]) -> Picture:
    """The accuracy of each random grouping and of the one in the order of classes, a line for each mode."""
    with drawing():
        figure = Figure(figsize=(WIDTH_INCHES, 0.5 * len(results) + 1.1))
        axes = figure.subplots()
        for place, result in enumerate(results.values()):
            _draw(axes, place, result)
        axes.set_yticks(range(len(results)), [short(mode) for mode in results], color=INK)
        axes.set_ylim(len(results) - 0.4, -0.6)
        axes.set_xlabel("top-1 accuracy %")
        handles, labels = axes.get_legend_handles_labels()
        by_label = dict(zip(labels, handles, strict=True))
        figure.legend(
            by_label.values(), by_label.keys(), loc="lower left", ncols=3, frameon=False, fontsize=8
        )
    return Picture("Accuracy by batch-mates", _words(results), figure)


def sensitivity_rows(results: Mapping[str, Result]) -> Iterator[tuple[str, str, float]]:
    """The numbers of the picture, by `COLUMNS`."""
    for mode, result in results.items():
        for number, top1 in enumerate(result["top1_by_grouping"]):
            yield mode, f"random {number}", top1
        yield mode, "in the order of classes", result["top1_ordered"]


def _draw(axes: Axes, place: int, result: Result) -> None:
    random = [100 * top1 for top1 in result["top1_by_grouping"]]
    mean, deviation = 100 * result["top1_mean"], 100 * result["top1_std"]
    axes.plot(
        [mean - deviation, mean + deviation], [place, place], color=FAINT, linewidth=7, label="mean ± SD"
    )
    axes.plot([mean], [place], "|", color=INK, markersize=11, markeredgewidth=1.4)
    axes.plot(random, [place] * len(random), "o", color=ACCENT, markersize=4, alpha=0.7, label="random")
    axes.plot(
        [100 * result["top1_ordered"]],
        [place],
        "D",
        color=WORSE,
        markersize=6,
        markerfacecolor="none",
        markeredgewidth=1.4,
        label="in the order of classes",
    )


def _words(results: Mapping[str, Result]) -> str:
    parts = [
        f"{mode}: sensitivity {result['sensitivity_points']:.2f} points"
        + (" (marked)" if result["sensitivity_points"] > MOST_POINTS else "")
        + f", {100 * result['changed_fraction']:.1f} % of predictions change"
        for mode, result in results.items()
    ]
    return "Each point is one grouping of the same test images. " + "; ".join(parts) + "."
