"""What was seen of a run's routers as numbers by name, for its record."""

import math

import numpy as np

from routerbench.inspection.measures.similarity import between, of_images
from routerbench.inspection.measures.specialisation import OF_WHAT, specialisation
from routerbench.inspection.seeing.seen import LayerSeen, Seen
from routerbench.stats.information import Explained


def numbers_of(seen: Seen, permutations: int = 200, seed: int = 0) -> dict[str, float]:
    """`<layer>/<what>` of each layer, `<what>` the mean over layers; `docs/metrics.md` says what each is.

    What does not exist, as what the class says of a single expert, is left out. `permutations` and `seed` are
    of the null models of `specialisation`.
    """
    numbers: dict[str, float] = {}
    found = specialisation(seen, permutations, seed)
    for layer in seen.layers:
        of_layer = _of_layer(layer)
        for what, explained in found[layer.name].items():
            of_layer |= _of_information(what, explained)
        numbers |= {f"{layer.name}/{name}": value for name, value in of_layer.items()}
    means = {
        what: _mean([layers[what].share for layers in found.values() if what in layers]) for what in OF_WHAT
    }
    return {name: value for name, value in (numbers | means).items() if math.isfinite(value)}


def _of_information(what: str, explained: Explained) -> dict[str, float]:
    return {
        what: explained.share,
        f"{what}_low": explained.low,
        f"{what}_high": explained.high,
        f"{what}_null": explained.null,
        f"{what}_p": explained.p,
    }


def _of_layer(layer: LayerSeen) -> dict[str, float]:
    influence = layer.influence / max(float(layer.influence.mean()), 1e-12)
    return {
        "experts_per_image": float((layer.share > 0).sum(1).mean()),
        "weight_similarity": between(layer.weight_similarity),
        "output_similarity": between(layer.output_similarity),
        "image_similarity": between(of_images(layer.share)),
        "slots_above_2_fraction": float((layer.slots > 2).mean()),
        "slots_up_to_quarter_fraction": float((layer.slots <= 0.25).mean()),
        "influence_max_over_mean": float(influence.max()),
        "influence_min_over_mean": float(influence.min()),
    }


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
