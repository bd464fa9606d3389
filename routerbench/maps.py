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

    @classmethod
    @torch.no_grad()
    def of(cls, plan: Plan, labels: Int[Tensor, "B"], num_classes: int) -> "RoutingMaps":
        """The sums over one batch, whose tokens lie image after image."""
        share = plan.expert_share.reshape(len(labels), -1, plan.gates.shape[-1])
        dropped = plan.dropped.reshape(len(labels), -1).to(share.dtype)
        tokens = torch.ones_like(dropped)

        def by_class(values: Tensor) -> Tensor:
            return values.new_zeros(num_classes, *values.shape[1:]).index_add(0, labels, values)

        return cls(
            *(by_class(values.sum(1)) for values in (share, dropped, tokens)),
            *(values.sum(0) for values in (share, dropped, tokens)),
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
        """The fraction dropped of the class and of the position that lose most."""
        arrays = self.arrays()
        return {
            "dropped_worst_class_fraction": float(np.nanmax(arrays["dropped_by_class"])),
            "dropped_worst_position_fraction": float(arrays["dropped_by_position"].max()),
        }
