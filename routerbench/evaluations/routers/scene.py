"""A run whose routers are to be replaced, another run of its kind, and what a pass over its images shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from routerbench.evaluations.routers.matching import choices_of, co_occurrence, first_choices, joined, matched
from routerbench.evaluations.routers.rescored import Mean, replaced, rescored
from routerbench.evaluations.seeing.observation import Observation, observe
from routerbench.load import FinishedRun
from routerbench.moe.layer import MoE
from routerbench.moe.plan import Plan
from routerbench.moe.router import Router
from routerbench.moe.surgery import moe_layers, take_shape


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
        """How its experts match ours, by the first choices that each router makes for the same images in its
        own model.
        """
        return self._matched(take(self.run, self.scene.order).first)

    def _matched(self, first: Mapping[str, NDArray[np.int16]]) -> dict[str, NDArray[np.int64]]:
        own = self.scene.trained.first
        return {
            name: matched(co_occurrence(own[name], first[name], layer.experts.num_experts))
            for name, layer in self.layers.items()
        }


def _shapes(router: Router) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in router.named_parameters()}
