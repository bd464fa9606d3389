"""Trained routers whose scores are changed on the way, and models whose routers are replaced for a while."""

import copy
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from routerbench.moe.plan import SoftPlan
from routerbench.moe.router import Router, Routing, SoftRouter
from routerbench.moe.scorer import Scorer
from routerbench.moe.sparse import SparseRouter
from routerbench.moe.surgery import moe_layers

Scores = Float[Tensor, "G S *E"]
"""Of every token for every expert (G, S, E), of Soft MoE for every slot (G, S, E, P)."""
Change = Callable[[Scores], Scores]


class Rescored(Router, ABC):
    """A router that decides as `plain` would on scores that are changed first."""

    plain: Router


def has_scores(router: Router) -> bool:
    """Whether `rescored` knows the scores of this router: sparse ones with a gate, and Soft MoE."""
    return isinstance(router, SparseRouter | SoftRouter)


def rescored(router: Router, change: Change) -> Rescored:
    """The router with other scores; the router itself stays as it is."""
    if isinstance(router, SparseRouter):
        return RescoredSparse(router, change)
    assert isinstance(router, SoftRouter), type(router)
    return RescoredSoft(router, change)


class RescoredSparse(Rescored):
    """A sparse router whose scorer's logits are changed; seats, capacity and weights follow its own rules."""

    def __init__(self, plain: SparseRouter, change: Change) -> None:
        super().__init__()
        self.plain = plain
        self.changed = copy.deepcopy(plain)
        self.changed.scorer = ChangedScorer(plain.scorer, change)
        self.eval()

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """As the router decides on the changed logits."""
        return self.changed(tokens)


class ChangedScorer(Scorer):
    """A scorer whose logits are changed."""

    def __init__(self, scorer: Scorer, change: Change) -> None:
        super().__init__(num_experts=1, noise_std=0.0)
        self.scorer = scorer
        self.change = change

    def score(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S E"]:
        """The changed logits."""
        return self.change(self.scorer.score(tokens))


class RescoredSoft(Rescored):
    """Soft MoE with changed logits."""

    def __init__(self, plain: SoftRouter, change: Change) -> None:
        super().__init__()
        self.plain = plain
        self.change = change
        self.eval()

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """Softmax of the changed logits over tokens to dispatch, and over slots to combine."""
        assert isinstance(self.plain, SoftRouter)
        logits = self.change(self.plain.logits(tokens))
        combine = logits.flatten(2).softmax(-1).view_as(logits)
        return Routing(SoftPlan(logits.softmax(1), combine), {})


@contextmanager
def replaced(model: nn.Module, routers: Mapping[str, Router]) -> Iterator[nn.Module]:
    """Inside, these MoE layers have these routers; afterwards, all have their own again."""
    layers = moe_layers(model)
    own = {name: layers[name].router for name in routers}
    try:
        for name, router in routers.items():
            layers[name].router = router
        yield model
    finally:
        for name, router in own.items():
            layers[name].router = router


def without_first(scores: Scores) -> Scores:
    """What is left when the expert that each token scores highest is forbidden."""
    of_experts = scores if scores.dim() == 3 else scores.logsumexp(-1)
    first = torch.zeros_like(of_experts, dtype=torch.bool).scatter(-1, of_experts.argmax(-1, True), True)
    # Not -inf, which a transport plan cannot take: far below all others.
    return scores.masked_fill(first.view(*first.shape, *[1] * (scores.dim() - 3)), scores.amin() - 1e4)


class OfPosition:
    """Every token has the scores `(T, ...)` of its position in the image, whatever the image shows."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def __call__(self, scores: Scores) -> Scores:
        return self.scores.to(scores).expand(of_images(scores, len(self.scores)).shape).reshape(scores.shape)


class OfImageBefore:
    """Every token has the scores of the same position in the image before; the first image keeps its own."""

    def __init__(self, tokens_per_image: int) -> None:
        self.tokens_per_image = tokens_per_image
        self.last: Tensor | None = None

    def __call__(self, scores: Scores) -> Scores:
        images = of_images(scores, self.tokens_per_image)
        before = images[:1] if self.last is None else self.last
        self.last = images[-1:]
        return torch.cat([before, images[:-1]]).view(scores.shape)


class Mean:
    """Adds up the scores of each position over images, and leaves them as they are."""

    def __init__(self, tokens_per_image: int) -> None:
        self.tokens_per_image = tokens_per_image
        self.total: Tensor | None = None
        self.num_images = 0

    def __call__(self, scores: Scores) -> Scores:
        images = of_images(scores, self.tokens_per_image)
        total = images.double().sum(0)
        self.total = total if self.total is None else self.total + total
        self.num_images += len(images)
        return scores

    def value(self) -> Tensor:
        """The mean scores (T, ...)."""
        assert self.total is not None
        return (self.total / self.num_images).float()


class Kept:
    """Keeps the latest scores, and leaves them as they are."""

    def __init__(self) -> None:
        self.scores: Tensor | None = None

    def __call__(self, scores: Scores) -> Scores:
        self.scores = scores
        return scores


def of_images(scores: Scores, tokens_per_image: int) -> Float[Tensor, "B T *E"]:
    """The scores image by image: a group holds the tokens of one image after those of another."""
    return scores.reshape(-1, tokens_per_image, *scores.shape[2:])
