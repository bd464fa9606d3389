"""What is known of a run's routers -> the chapters of its page, with all pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from routerbench.inspection.figures.by_class import class_maps
from routerbench.inspection.figures.by_layer import load_map, specialisation_by_layer
from routerbench.inspection.figures.by_position import position_maps
from routerbench.inspection.figures.drawn import Drawn
from routerbench.inspection.figures.images import patches_by_expert
from routerbench.inspection.figures.pairs import similarity, similarity_by_depth, together
from routerbench.inspection.figures.per_image import experts_per_image, patches_cdf
from routerbench.inspection.figures.said import Numbers
from routerbench.inspection.figures.shown import ShownImages
from routerbench.inspection.figures.slots import Mixtures, dispatch_maps
from routerbench.inspection.figures.stability import over_checkpoints, over_seeds
from routerbench.inspection.figures.training import over_training
from routerbench.inspection.seeing.seen import LayerSeen, Seen


@dataclass(frozen=True)
class Known:
    """All that pictures are made of."""

    folder: Path
    """Of the run, for its `metrics.jsonl`."""
    seen: Seen
    layers: Sequence[LayerSeen]
    """Those of `seen` that are drawn."""
    numbers: Numbers
    shown: ShownImages
    mixtures: Sequence[Mixtures] = ()
    """Of a soft router, for the images that are shown."""
    seeds: Numbers = field(default_factory=dict)
    """Agreement with the other seeds that were named, as `<layer>/<what>`."""
    num_seeds: int = 1
    checkpoints: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Agreement with the trained model by step and layer, of the checkpoints that the run kept."""


@dataclass(frozen=True)
class Chapter:
    """Pictures that belong together, and in a line each what could not be drawn."""

    title: str
    drawn: Sequence[Drawn]
    remarks: Sequence[str] = ()


def chapters(known: Known) -> list[Chapter]:
    """Every picture that there is something for."""
    return [
        _experts(known),
        _images(known),
        _per_image(known),
        _pairs(known),
        _training(known),
        _seeds(known),
    ]


def _experts(known: Known) -> Chapter:
    found, on_grid = known.numbers, _on_grid(known.layers)
    maps = [position_maps(layer, found) for layer in on_grid]
    drawn = [class_maps(known.seen, known.layers, found), *maps, load_map(known.layers)]
    return Chapter(
        "Who serves what",
        [*drawn, *_there(specialisation_by_layer(known.layers, found))],
        _without_grid(known.layers),
    )


def _images(known: Known) -> Chapter:
    drawn = patches_by_expert(known.seen, _on_grid(known.layers), known.shown)
    slots = [dispatch_maps(known.seen, mixtures, known.shown) for mixtures in known.mixtures]
    return Chapter("Images as the routers see them", [*drawn, *slots], _without_grid(known.layers))


def _per_image(known: Known) -> Chapter:
    return Chapter("Experts of an image", [experts_per_image(known.layers), patches_cdf(known.layers)])


def _pairs(known: Known) -> Chapter:
    both = together(known.layers)
    remarks = ["No token is served by two experts, so that none stand together."] if both is None else []
    kinds = [similarity(known.layers, kind) for kind in ("weight_similarity", "output_similarity")]
    depth = similarity_by_depth(known.layers, known.numbers)
    return Chapter("How alike experts are", [*_there(both), *kinds, *_there(depth)], remarks)


def _training(known: Known) -> Chapter:
    curves = over_training(known.folder, [layer.name for layer in known.layers])
    moments = over_checkpoints(known.checkpoints)
    remarks = []
    if curves is None:
        remarks.append("The run's metrics.jsonl tells of no layer's routing over training.")
    if moments is None:
        remarks.append("The run has kept no checkpoints: runtime.keep_checkpoints=N keeps them.")
    return Chapter("Over training", [*_there(curves), *_there(moments)], remarks)


def _seeds(known: Known) -> Chapter:
    drawn = over_seeds([layer.name for layer in known.layers], known.seeds, known.num_seeds)
    remark = "Name other seeds of the same configuration in the command to see what they have in common."
    return Chapter("Other seeds", _there(drawn), [remark] if drawn is None else [])


def _there(*drawn: Drawn | None) -> list[Drawn]:
    return [one for one in drawn if one is not None]


def _on_grid(layers: Iterable[LayerSeen]) -> list[LayerSeen]:
    """The layers whose tokens lie as the image does."""
    return [layer for layer in layers if layer.grid[0] > 1]


def _without_grid(layers: Sequence[LayerSeen]) -> list[str]:
    names = [layer.name for layer in layers if layer.grid[0] == 1]
    return [f"The tokens of {', '.join(names)} lie in no grid: they have no place on an image."] * bool(names)
