"""Routers that stand in for trained ones: controls, the trained ones on other scores, and other routers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.build import build_router
from routerbench.data.randomness import seeded
from routerbench.evaluations.names import CONTROLS, OF_ANOTHER_RUN, REPLACEMENTS
from routerbench.evaluations.routers.matching import (
    choices_of,
    co_occurrence,
    first_choices,
    joined,
    matched,
    reordered,
)
from routerbench.evaluations.routers.rescored import (
    Kept,
    Mean,
    OfImageBefore,
    OfPosition,
    has_scores,
    replaced,
    rescored,
    without_first,
)
from routerbench.evaluations.seeing.observation import Observation, observe
from routerbench.load import FinishedRun
from routerbench.moe.layer import MoE
from routerbench.moe.plan import Plan, SparsePlan
from routerbench.moe.router import Router
from routerbench.moe.surgery import moe_layers, take_shape

Routers = Mapping[str, Router]


@dataclass(frozen=True)
class Pass:
    """What one pass over the test images showed."""

    seen: Observation
    first: Mapping[str, NDArray[np.int16]]
    """By MoE layer, the expert with the largest gate of every token."""


def take(run: FinishedRun, order: NDArray[np.int64]) -> Pass:
    """Send the test images, in this order, through the model as it is now."""
    with first_choices(run.model) as first:
        seen = observe(run, run.batches(order))
    return Pass(seen, {name: joined(choices) for name, choices in first.items()})


@dataclass(frozen=True)
class Scene:
    """A run whose routers are to be replaced, and what replacements are made of; all is found when needed.

    Test images come in a random order, the same in every pass, so that the image before is any other one;
    the first has none before it.
    """

    run: FinishedRun
    seed: int

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The order of the test images."""
        return np.random.default_rng(self.seed).permutation(len(self.run.test.labels))

    @cached_property
    def layers(self) -> dict[str, MoE]:
        """The MoE layers by name."""
        return moe_layers(self.run.model)

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """What each layer makes of one blank image."""
        size = self.run.config.data.image_size
        with self.run.autocast:
            take_shape(self.run.model, (size, size))
        return {name: layer.routing.plan for name, layer in self.layers.items() if layer.routing is not None}

    def tokens_per_image(self, layer: str) -> int:
        """T of an MoE layer."""
        return self.plans[layer].gates.shape[:2].numel()

    @cached_property
    def trained(self) -> Pass:
        """With the trained routers."""
        return take(self.run, self.order)

    @cached_property
    def mean_scores(self) -> dict[str, Tensor]:
        """By layer, the mean scores of each position over the test images."""
        means = {name: Mean(self.tokens_per_image(name)) for name in self.layers}
        watching = {name: rescored(layer.router, means[name]) for name, layer in self.layers.items()}
        with replaced(self.run.model, watching):
            observe(self.run, self.run.batches(self.order))
        return {name: mean.value() for name, mean in means.items()}

    def partner(self, layer: str) -> str | None:
        """The next MoE layer, after the last the first, with a router of the same shapes, if any."""
        names = list(self.layers)
        place = names.index(layer)
        own = _shapes(self.layers[layer].router)
        later = (*names[place + 1 :], *names[:place])
        return next((name for name in later if _shapes(self.layers[name].router) == own), None)


@dataclass(frozen=True)
class Other:
    """A run of the same configuration with another seed."""

    run: FinishedRun
    scene: Scene

    @property
    def seed(self) -> int:
        """Its seed, by which it is called."""
        return self.run.record["config"]["seed"]

    @cached_property
    def layers(self) -> dict[str, MoE]:
        """Its MoE layers by name, which are those of the run."""
        return moe_layers(self.run.model)

    @cached_property
    def on_own_tokens(self) -> Mapping[str, NDArray[np.int64]]:
        """For each layer how its experts match, by what its router chooses for the tokens of the run."""
        scene = self.scene
        with choices_of(
            scene.run.model, {name: layer.router for name, layer in self.layers.items()}
        ) as first:
            observe(scene.run, scene.run.batches(scene.order))
        return self._matched({name: joined(choices) for name, choices in first.items()})

    @cached_property
    def in_its_model(self) -> Mapping[str, NDArray[np.int64]]:
        """The same by what it chooses for the same patches of the same images in its own model."""
        return self._matched(take(self.run, self.scene.order).first)

    def _matched(self, first: Mapping[str, NDArray[np.int16]]) -> dict[str, NDArray[np.int64]]:
        own = self.scene.trained.first
        return {
            name: matched(co_occurrence(own[name], first[name], layer.experts.num_experts))
            for name, layer in self.layers.items()
        }


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


def _shapes(router: Router) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in router.named_parameters()}
