"""Routers that stand in for trained ones: controls, the trained ones on other scores, and other routers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.build import build_router
from routerbench.data.randomness import seeded
from routerbench.evaluations.names import CONTROLS, OF_ANOTHER_RUN, REPLACEMENTS
from routerbench.evaluations.routers.matching import reordered
from routerbench.evaluations.routers.rescored import (
    Kept,
    OfImageBefore,
    OfPosition,
    has_scores,
    replaced,
    rescored,
    without_first,
)
from routerbench.evaluations.routers.scene import Other, Scene
from routerbench.moe.plan import Plan, SparsePlan
from routerbench.moe.router import Router

Routers = Mapping[str, Router]


def impossible(scene: Scene, others: list[Other]) -> dict[str, str]:
    """Why the replacements that this run cannot have are not for it, by name."""
    layers = scene.layers.values()
    mixes = any(not isinstance(plan, SparsePlan) for plan in scene.plans.values())
    grouped = any(layer.images_per_group > 1 for layer in layers)
    reasons: dict[str, str] = {}
    if grouped:
        reasons |= dict.fromkeys(("uniform", "soft_identity"), "its groups hold several images")
    if mixes or not all(hasattr(layer.router, "capacity") for layer in layers):
        reasons |= dict.fromkeys(("hash", "random"), "its slots do not hold a token each")
    learned = [name for name in REPLACEMENTS if name not in CONTROLS]
    if not all(has_scores(layer.router) for layer in layers):
        return reasons | dict.fromkeys(learned, "its routers have no scores")
    if min(layer.experts.num_experts for layer in layers) < 2:
        reasons["drop_first"] = "it has one expert alone"
    if not any(scene.partner(name) for name in scene.layers):
        reasons["other_layer"] = "no other layer has a router of the same shape"
    if not others:
        reasons |= dict.fromkeys(OF_ANOTHER_RUN, "name a run of the same configuration and another seed too")
    return reasons


def layers_of(scene: Scene, name: str) -> list[str]:
    """The layers whose routers can be replaced so."""
    return [layer for layer in scene.layers if name != "other_layer" or scene.partner(layer)]


@contextmanager
def standing_in(scene: Scene, name: str, layers: list[str], other: Other | None) -> Iterator[Routers]:
    """Inside, routers that stand in for those of these layers; the model still has its own."""
    if name in CONTROLS:
        yield {layer: _control(scene, name, layer) for layer in layers}
    elif name == "other_layer":
        yield {layer: scene.layers[scene.partner(layer) or layer].router for layer in layers}
    elif other is None:
        yield {layer: rescored(scene.layers[layer].router, _change(scene, name, layer)) for layer in layers}
    elif name in ("other_seed", "other_seed_matched"):
        matches = other.on_own_tokens if name.endswith("matched") else {}
        yield {layer: _of_other(other, matches.get(layer), layer) for layer in layers}
    else:
        with _scores_of(other) as kept:
            matches = other.in_its_model if name.endswith("matched") else {}
            yield {layer: _of_its_scores(other, matches.get(layer), layer, kept[layer]) for layer in layers}


def _control(scene: Scene, name: str, layer: str) -> Router:
    """A control with as many slots as the layer's own router has."""
    moe, plan = scene.layers[layer], scene.plans[layer]
    num_experts, width, _ = moe.experts.w1.shape
    build = partial(build_router, name, width, num_experts)
    if name in ("uniform", "soft_identity"):
        return build(slots_per_expert=plan.num_slots).eval()
    router: Any = moe.router
    top_k = _choices_per_token(router, plan)
    with seeded(scene.seed, list(scene.layers).index(layer)):
        control: Any = build(top_k=top_k)
    control.capacity = router.capacity if _asks(router) else _over(router.capacity, top_k)
    return control.eval()


def _asks(router: Any) -> bool:
    """Whether tokens choose; else experts do, and capacity counts slots per token, not per choice."""
    return hasattr(router, "top_k")


def _choices_per_token(router: Any, plan: Plan) -> int:
    """As many experts as a token asks for, or has slots on average."""
    if _asks(router):
        return int(getattr(router, "num_choices", router.top_k))
    num_tokens, num_experts = plan.gates.shape[1:]
    return min(max(round(plan.num_slots * num_experts / num_tokens), 1), num_experts)


def _over(capacity: Any, top_k: int) -> Any:
    """The capacity for each of so many choices."""
    of_evaluation = None if capacity.eval_factor is None else capacity.eval_factor / top_k
    return replace(capacity, factor=capacity.factor / top_k, eval_factor=of_evaluation)


def _change(scene: Scene, name: str, layer: str) -> Callable[[Tensor], Tensor]:
    if name == "drop_first":
        return without_first
    if name == "frozen":
        return OfPosition(scene.mean_scores[layer])
    return OfImageBefore(scene.tokens_per_image(layer))


def _of_other(other: Other, match: NDArray[np.int64] | None, layer: str) -> Router:
    router = other.layers[layer].router
    return router if match is None else reordered(router, match)


def _of_its_scores(other: Other, match: NDArray[np.int64] | None, layer: str, kept: Kept) -> Router:
    return rescored(_of_other(other, match, layer), partial(_kept_scores, kept, match))


@contextmanager
def _scores_of(other: Other) -> Iterator[Mapping[str, Kept]]:
    """Inside, the other model sees every batch first, and the latest scores of its routers are kept."""
    kept = {name: Kept() for name in other.layers}
    watching = {name: rescored(layer.router, kept[name]) for name, layer in other.layers.items()}

    def look_first(_: nn.Module, images: tuple[Tensor]) -> None:
        with replaced(other.run.model, watching):
            other.run.model(*images)

    handle = other.scene.run.model.register_forward_pre_hook(look_first)
    try:
        yield kept
    finally:
        handle.remove()


def _kept_scores(kept: Kept, order: NDArray[np.int64] | None, scores: Tensor) -> Tensor:
    """The kept scores in place of one's own, with experts in this order."""
    assert kept.scores is not None
    if order is None:
        return kept.scores
    return kept.scores.index_select(2, torch.from_numpy(order).to(scores.device))
