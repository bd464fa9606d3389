"""Pictures of the published tables: accuracy against cost."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routerbench.figures.picture import Picture
from routerbench.figures.style import INK, drawing
from routerbench.report.published.tables import ImageNetModel, imagenet_models, soft_moe_runs

MARKERS = {"dense": "D", "token_choice": "s", "expert_choice": "^", "soft": "o"}
COLOURS = {"dense": "#7f7f7f", "token_choice": "#0072b2", "expert_choice": "#d55e00", "soft": "#009e73"}
TICKS = (3, 10, 30, 100, 300, 1000)
BESIDE, BELOW = (8, -3), (5, -11)  # of a point, in points, where no line runs through the name
SIZE = (6.4, 4.0)  # inches


def published_pictures() -> list[Picture]:
    """Soft MoE's table 9 and the Sweet Spot's table 1: each point is a printed row, without a spread."""
    with drawing():
        return [_soft_moe(), _sweet_spot()]


def _soft_moe() -> Picture:
    figure, axes = _axes("training exaFLOP", "ImageNet 10-shot, %")
    axes.set_xscale("log")
    axes.set_xticks(TICKS, map(str, TICKS))
    axes.minorticks_off()
    for router, marker in MARKERS.items():
        runs = [run for run in soft_moe_runs() if run.router == router]
        cost, accuracy = [run.train_exaflop for run in runs], [100 * run.imagenet_10shot for run in runs]
        # A line without strokes: one marker in the file, used for every point.
        axes.plot(
            cost, accuracy, marker, color=COLOURS[router], markersize=6, markeredgewidth=0, label=router
        )
    axes.legend(frameon=False)
    return Picture(
        "Published: Soft MoE, table 9",
        "ImageNet 10-shot accuracy against training exaFLOP of 107 runs on JFT, by router. At equal training "
        "cost soft lies above expert_choice and token_choice.",
        figure,
    )


def _sweet_spot() -> Picture:
    figure, axes = _axes("GFLOPs an image", "ImageNet-1k top-1, %")
    models = imagenet_models()
    for family, colour in (("ConvNeXt", "#0072b2"), ("ConvNeXt iso", "#d55e00"), ("ViT", "#009e73")):
        _joined(axes, [model for model in models if _family(model) == family], family, colour)
    axes.plot([], [], "D", color=INK, markerfacecolor="none", label="dense")
    axes.plot([], [], "o", color=INK, label="MoE")
    axes.margins(y=0.1)  # room for the name below the lowest point
    axes.legend(frameon=False, loc="lower right")
    return Picture(
        "Published: the Sweet Spot, table 1",
        "ImageNet-1k top-1 against GFLOPs an image of seven dense models, each joined with its MoE models. "
        "Those of the small isotropic ConvNeXt and of ViT-S lie above their dense twins, those of base size "
        "below.",
        figure,
    )


def _joined(axes: Axes, models: Sequence[ImageNetModel], family: str, colour: str) -> None:
    """Each dense model with a line to each of its MoE models."""
    axes.plot([], [], color=colour, label=family)
    for dense in (model for model in models if not model.num_experts):
        axes.plot(dense.gflops, 100 * dense.imagenet1k_top1, "D", color=colour, markerfacecolor="none")
        axes.annotate(
            dense.backbone.replace(" iso", ""),
            (dense.gflops, 100 * dense.imagenet1k_top1),
            BESIDE if dense.backbone == "ViT-S" else BELOW,
            textcoords="offset points",
            fontsize=8,
        )
        for moe in (model for model in models if model.num_experts and model.backbone == dense.backbone):
            ends = ([dense.gflops, moe.gflops], [100 * dense.imagenet1k_top1, 100 * moe.imagenet1k_top1])
            axes.plot(*ends, color=colour, linewidth=1)
            axes.plot(ends[0][1], ends[1][1], "o", color=colour, markersize=5)


def _family(model: ImageNetModel) -> str:
    return "ConvNeXt iso" if model.backbone.endswith("iso") else model.backbone.partition("-")[0]


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(SIZE)
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    return figure, axes
