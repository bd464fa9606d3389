"""Maps: which classes and which positions of the images each expert serves, and which are dropped."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from routerbench.metrics import Metrics
from routerbench.moe.plan import Plan


@dataclass
class RoutingMaps:
    """Sums over the images of an evaluation, for one layer; a position is a token's place in its image."""

    share_by_class: Float[Tensor, "classes E"]
    dropped_by_class: Float[Tensor, "classes"]
    tokens_by_class: Float[Tensor, "classes"]
    share_by_position: Float[Tensor, "T E"]
    dropped_by_position: Float[Tensor, "T"]
    tokens_by_position: Float[Tensor, "T"]
    expert_by_class: Float[Tensor, "classes E"]
    """Tokens by their one expert, see `expert_of`."""
    expert_by_position: Float[Tensor, "T E"]
    squares: Float[Tensor, "E"]
    """Squares of how many tokens of an image are an expert's, summed over images."""
    squares_of_all: Float[Tensor, ""]
    """The same of how many tokens of an image have any expert."""

    @classmethod
    @torch.no_grad()
    def of(cls, plan: Plan, labels: Int[Tensor, "B"], num_classes: int) -> "RoutingMaps":
        """The sums over one batch, whose tokens lie image after image."""
        num_images, num_experts = len(labels), plan.gates.shape[-1]
        share = plan.expert_share
        expert = _expert(plan.gates, share).reshape(num_images, -1)
        share = share.reshape(num_images, -1, num_experts)
        dropped = (expert < 0).to(share.dtype)
        tokens = torch.ones_like(dropped)

        def counted(expert: Int[Tensor, "rows tokens"]) -> Float[Tensor, "rows E"]:
            counts = share.new_zeros(len(expert), num_experts + 1)
            return counts.scatter_add(1, expert + 1, share.new_ones(expert.shape))[:, 1:]

        of_images = counted(expert)

        def by_class(values: Tensor) -> Tensor:
            return values.new_zeros(num_classes, *values.shape[1:]).index_add(0, labels, values)

        return cls(
            *(by_class(values.sum(1)) for values in (share, dropped, tokens)),
            *(values.sum(0) for values in (share, dropped, tokens)),
            expert_by_class=by_class(of_images),
            expert_by_position=counted(expert.T),
            squares=of_images.square().sum(0),
            squares_of_all=of_images.sum(1).square().sum(),
        )

    def __add__(self, other: "RoutingMaps") -> "RoutingMaps":
        return RoutingMaps(
            *(getattr(self, field.name) + getattr(other, field.name) for field in fields(self))
        )

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Means over the tokens of a class (rows) or position; those of a class that did not occur are NaN.

        `share_by_class`, `share_by_position`: what a token has of each expert (columns), where 1 is a slot of
        its own, or an even share of mixtures; `dropped_by_class`, `dropped_by_position`: fraction dropped.
        """
        means = {
            "share_by_class": self.share_by_class / self.tokens_by_class[:, None],
            "dropped_by_class": self.dropped_by_class / self.tokens_by_class,
            "share_by_position": self.share_by_position / self.tokens_by_position[:, None],
            "dropped_by_position": self.dropped_by_position / self.tokens_by_position,
        }
        return {name: mean.float().cpu().numpy() for name, mean in means.items()}

    def metrics(self) -> Metrics:
        """The fraction dropped of the class and of the position that lose most; what both say of experts."""
        arrays = self.arrays()
        return {
            "dropped_worst_class_fraction": float(np.nanmax(arrays["dropped_by_class"])),
            "dropped_worst_position_fraction": float(arrays["dropped_by_position"].max()),
            **self._information(),
        }

    def _information(self) -> Metrics:
        """The share of the entropy of tokens' experts that class and position explain, beyond chance.

        What chance explains is known to second order, so that no permutation is needed: that of labels over
        images, whose tokens stay together, and that of tokens over the positions of their image.
        """
        by_class, by_position = self.expert_by_class.double(), self.expert_by_position.double()
        num_positions, counts = len(by_position), by_position.sum(0)
        num_served, num_images = counts.sum().clamp(min=1), self.tokens_by_position[0].double()
        alike = (self.squares.double() / counts.clamp(min=1)).sum() - self.squares_of_all / num_served
        num_classes, num_experts = (self.tokens_by_class > 0).sum(), (counts > 0).sum()
        of_labels = (num_classes - 1) * alike * num_images / (num_images - 1).clamp(min=1)
        of_places = num_positions * (num_experts - 1) - alike
        shares = [
            _explained(by_class, of_labels / (2 * num_served)),
            _explained(by_position, of_places / (2 * num_served)),
        ]
        return dict(
            zip(("class_information", "position_information"), torch.stack(shares).tolist(), strict=True)
        )


def expert_of(plan: Plan) -> Int[Tensor, "G S"]:
    """For each token, the expert with its largest gate among those that hold it; -1 where it is dropped."""
    return _expert(plan.gates, plan.expert_share)


def _expert(gates: Float[Tensor, "G S E"], share: Float[Tensor, "G S E"]) -> Int[Tensor, "G S"]:
    gate, expert = gates.masked_fill(share <= 0, -1).max(-1)
    return expert.masked_fill(gate < 0, -1)


def _explained(counts: Float[Tensor, "X E"], chance: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """(I - I0) / (H - I0), as `stats.information.explained`; 0 where there is nothing to explain."""
    whole = _entropy(counts.sum(0))
    room = whole - chance
    share = (whole + _entropy(counts.sum(1)) - _entropy(counts.flatten()) - chance) / room
    return torch.where(room > 1e-9, share, 0.0)


def _entropy(counts: Float[Tensor, "X"]) -> Float[Tensor, ""]:
    return torch.special.entr(counts / counts.sum().clamp(min=1)).sum()
