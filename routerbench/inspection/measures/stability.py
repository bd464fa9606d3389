"""Whether routers come to the same again: with other seeds, and over training."""

import copy
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch

from routerbench.checkpoint import kept_steps, read_weights_into
from routerbench.evaluate import predictions
from routerbench.evaluations.routers.matching import matched
from routerbench.inspection.measures.specialisation import Tokens, met, moved, patches
from routerbench.inspection.routing_of import by_image
from routerbench.inspection.seeing.seen import LayerSeen, Seen
from routerbench.load import FinishedRun
from routerbench.moe.surgery import moe_layers
from routerbench.stats.information import Table, entropy, mutual_information


def over_seeds(seen: Sequence[Seen], permutations: int = 20, seed: int = 0) -> dict[str, float]:
    """How alike runs of one configuration route, as numbers by name: the mean over pairs of runs.

    Patches that both runs serve are compared by their expert. `<layer>/agreement` is the fraction of them
    with the same expert, once the experts of the two runs are paired so that it is largest;
    `<layer>/agreement_null` is what images alone, or places alone, would give, whichever is more: the same
    with the patches of each image, or the images, of one run exchanged. `<layer>/adjusted_information` is the
    adjusted mutual information of both partitions: 0 by chance, 1 for the same. Without the layer: the mean
    over layers. Raises ValueError for fewer than two runs, and for runs of other images or layers.
    """
    _check_alike(seen)
    random = np.random.default_rng(seed)
    numbers: dict[str, float] = {}
    for layers in zip(*(one.layers for one in seen), strict=True):
        of_pairs = [_of_pair(*pair, permutations, random) for pair in combinations(layers, 2)]
        numbers |= {f"{layers[0].name}/{name}": _mean(of_pairs, name) for name in of_pairs[0]}
    names = dict.fromkeys(name.rpartition("/")[2] for name in numbers)
    return numbers | {
        name: float(np.mean([numbers[f"{layer.name}/{name}"] for layer in seen[0].layers])) for name in names
    }


def adjusted_information(together: Table) -> float:
    """Adjusted mutual information of two partitions of the same tokens (Vinh et al. 2010).

    With the mean entropy as most, and chance to second order; 1 where neither tells anything apart.
    """
    rows, columns = together.sum(1), together.sum(0)
    freedom = (np.count_nonzero(rows) - 1) * (np.count_nonzero(columns) - 1)
    chance = freedom / (2 * max(together.sum(), 1))
    most = float(entropy(rows) + entropy(columns)) / 2
    return float(mutual_information(together) - chance) / (most - chance) if most > chance else 1.0


@torch.no_grad()
def over_training(run: FinishedRun, seen: Seen) -> dict[int, dict[str, float]]:
    """For each kept checkpoint, the fraction of a layer's tokens whose first choice is already that of the
    trained model.

    Checkpoints are named by their steps; a first choice is the expert with the largest gate. `seen` is what
    was seen of the run, in the mode in which it is now. Empty where no checkpoint was kept. Raises ValueError
    for one that is damaged or of another model.
    """
    model = copy.deepcopy(run.model)
    found = {}
    for step, folder in kept_steps(run.folder).items():
        read_weights_into(model, folder, run.weights)
        first = _first_choices(run, model)
        found[step] = {layer.name: float(np.mean(first[layer.name] == layer.first)) for layer in seen.layers}
    return found


def _first_choices(run: FinishedRun, model: torch.nn.Module) -> dict[str, Tokens]:
    layers = moe_layers(model)
    first: dict[str, list[Tokens]] = {name: [] for name in layers}
    for _, labels in predictions(model, run.batches(), run.device, run.autocast, iter):
        for name, layer in layers.items():
            assert layer.routing is not None
            first[name].append(by_image(layer.routing.plan.gates.argmax(-1), len(labels)).astype(np.int16))
    return {name: np.concatenate(parts) for name, parts in first.items()}


def _of_pair(
    one: LayerSeen, other: LayerSeen, permutations: int, random: np.random.Generator
) -> dict[str, float]:
    first, second = patches(one), patches(other)

    def together(exchanged: Tokens) -> Table:
        return met(exchanged, second, one.num_experts, other.num_experts)

    within_images = moved(first, one.grid, permutations, random)
    within_positions = (first[random.permutation(len(first))] for _ in range(permutations))
    by_chance = [
        np.mean([_agreement(together(exchanged)) for exchanged in nulls])
        for nulls in (within_images, within_positions)
    ]
    return {
        "agreement": _agreement(together(first)),
        "agreement_null": float(max(by_chance)),
        "adjusted_information": adjusted_information(together(first)),
    }


def _agreement(together: Table) -> float:
    return float(together[np.arange(len(together)), matched(together)].sum() / max(together.sum(), 1))


def _mean(of_pairs: Sequence[dict[str, float]], name: str) -> float:
    return float(np.mean([of_pair[name] for of_pair in of_pairs]))


def _check_alike(seen: Sequence[Seen]) -> None:
    if len(seen) < 2:
        raise ValueError("stability over seeds takes two runs: give one with another seed")
    shapes = {
        tuple((layer.name, layer.grid, layer.first.shape, layer.num_experts) for layer in one.layers)
        for one in seen
    }
    if len(shapes) > 1 or not all(np.array_equal(one.labels, seen[0].labels) for one in seen):
        raise ValueError("stability over seeds takes runs of the same test images and layers: give such")
