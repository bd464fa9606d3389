"""What experts specialise in: what the class, the place and the layer before say of a token's expert."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Num

from routerbench.inspection.seeing.seen import LayerSeen, Seen
from routerbench.stats.information import Explained, Table, explained

FEWEST_OF_CLASS = 20  # images: with fewer the share is off by more than a twentieth, in simulations
OF_WHAT = ("class", "position", "next_layer")
Tokens = Int[np.ndarray, "N T"]


def specialisation(seen: Seen, permutations: int = 200, seed: int = 0) -> dict[str, dict[str, Explained]]:
    """For each layer by name and each of `OF_WHAT`: what it explains of the experts, with its interval and p.

    `class`: of the image, over all tokens; `position`: over patches alone; `next_layer`: this layer's expert
    of a patch, for the expert in the layer after it, where the patches of both lie alike.
    """
    found: dict[str, dict[str, Explained]] = {}
    followers = (*seen.layers[1:], None)
    for layer, follower in zip(seen.layers, followers, strict=True):
        random = np.random.default_rng(seed)
        found[layer.name] = {
            "class": by_class(layer, seen.labels, len(seen.class_names), permutations, random),
            "position": by_position(layer, permutations, random),
        }
        if follower is not None and follower.grid == layer.grid:
            found[layer.name]["next_layer"] = by_layer(layer, follower, permutations, random)
    return found


def by_class(
    layer: LayerSeen,
    labels: Int[np.ndarray, "N"],
    num_classes: int,
    permutations: int,
    random: np.random.Generator,
) -> Explained:
    """What the class of an image says of its tokens' experts; by chance the images have others' labels.

    NaN where classes have fewer than `FEWEST_OF_CLASS` images on average. Permuted labels are partly right by
    chance; `retained` corrects for it (as in the F ratio).
    """
    num_present = len(np.unique(labels))
    if num_present > 1 and len(labels) < FEWEST_OF_CLASS * num_present:
        return Explained(math.nan, reason=f"classes have fewer than {FEWEST_OF_CLASS} images")
    of_images = experts_of_images(layer)

    def table(rows: Int[np.ndarray, "N E"]) -> Table:
        return np.stack(
            [np.bincount(labels, of_expert, num_classes) for of_expert in rows.T.astype(np.float64)], 1
        )

    nulls = (table(of_images[random.permutation(len(labels))]) for _ in range(permutations))
    retained = (num_present - 1) / max(len(labels) - 1, 1)
    return explained(table(of_images), nulls, lambda values: (values[labels] * of_images).sum(1), retained)


def by_position(layer: LayerSeen, permutations: int, random: np.random.Generator) -> Explained:
    """What the place of a patch in its image says of its expert."""
    experts = patches(layer)
    places = np.broadcast_to(np.arange(experts.shape[1], dtype=np.int32), experts.shape)
    return _by_patch(layer, places, experts, experts.shape[1], layer.num_experts, permutations, random)


def by_layer(
    layer: LayerSeen, follower: LayerSeen, permutations: int, random: np.random.Generator
) -> Explained:
    """What a patch's expert says of its expert in a later layer whose patches lie alike."""
    sizes = layer.num_experts, follower.num_experts
    return _by_patch(layer, patches(layer), patches(follower), *sizes, permutations, random)


def _by_patch(
    layer: LayerSeen,
    causes: Tokens,
    experts: Tokens,
    num_causes: int,
    num_experts: int,
    permutations: int,
    random: np.random.Generator,
) -> Explained:
    """What a cause, of which each patch has one, says of its expert."""

    def of_images(values: Num[np.ndarray, "X E"]) -> Num[np.ndarray, "N"]:
        return np.pad(values, ((0, 1), (0, 1)))[causes, experts].sum(1)  # that of no expert is the last

    counts = met(causes, experts, num_causes, num_experts)
    moves = moved(causes, layer.grid, permutations, random)
    nulls = (met(other, experts, num_causes, num_experts) for other in moves)
    return explained(counts, nulls, of_images)


def moved(values: Tokens, grid: tuple[int, int], times: int, random: np.random.Generator) -> Iterator[Tokens]:
    """So many times: each image's values, moved over its grid as a whole, around its edges, anywhere.

    What an image has stays, and neighbours stay neighbours: they are alike in most routings, and to permute
    them one by one would take this for a meaning of their places.
    """
    rows, columns = grid
    images = values.reshape(-1, rows, columns)
    every = np.arange(len(images))[:, None, None]
    for _ in range(times):
        down, right = (random.integers(size, size=(len(images), 1)) for size in grid)
        from_row = (np.arange(rows) + down) % rows
        from_column = (np.arange(columns) + right) % columns
        yield images[every, from_row[:, :, None], from_column[:, None, :]].reshape(values.shape)


def met(one: Tokens, other: Tokens, num_one: int, num_other: int) -> Int[np.ndarray, "X E"]:
    """How many tokens have each pair of two things; those that lack one (-1) do not count."""
    pairs = (one.astype(np.int64) + 1) * (num_other + 1) + (other + 1)
    counts = np.bincount(pairs.ravel(), minlength=(num_one + 1) * (num_other + 1))
    return counts.reshape(num_one + 1, num_other + 1)[1:, 1:]


def patches(layer: LayerSeen) -> Tokens:
    """The experts of the tokens that lie on the grid."""
    return layer.expert[:, layer.num_prefix :]


def experts_of_images(layer: LayerSeen) -> Int[np.ndarray, "N E"]:
    """How many tokens of each image are each expert's."""
    image = np.broadcast_to(np.arange(len(layer.expert))[:, None], layer.expert.shape)
    return met(image, layer.expert, len(layer.expert), layer.num_experts)
