"""Metrics: what was predicted and what the routers did, in the same words for every router."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from routerbench.moe.plan import Plan

Metrics = dict[str, float]


@dataclass
class RoutingSums:
    """Sums over the tokens of one layer, from which its metrics are made; they stay on the device."""

    load: Float[Tensor, "E"]
    demand: Float[Tensor, "E"]
    entropy: Float[Tensor, ""]
    dropped: Float[Tensor, ""]
    tokens: int

    @classmethod
    @torch.no_grad()
    def of(cls, plan: Plan) -> "RoutingSums":
        """The sums of one plan."""
        gates = plan.gates
        return cls(
            load=plan.load.sum(0),
            demand=plan.demand.sum(0),
            entropy=torch.special.entr(gates).sum(),
            dropped=(plan.served == 0).sum().to(gates.dtype),
            tokens=gates.shape[0] * gates.shape[1],
        )

    def __add__(self, other: "RoutingSums") -> "RoutingSums":
        return RoutingSums(
            self.load + other.load,
            self.demand + other.demand,
            self.entropy + other.entropy,
            self.dropped + other.dropped,
            self.tokens + other.tokens,
        )

    def metrics(self) -> Metrics:
        """Metrics of the layer.

        `load_cv` and `demand_cv`: coefficient of variation over experts of filled slots, and of what tokens
        asked for; `dropped_fraction`: share of tokens in no slot; `entropy`: mean entropy of the gates, over
        that of a uniform one, in [0, 1].
        """
        num_experts = len(self.load)
        uniform = np.log(num_experts) if num_experts > 1 else 1.0
        return {
            "load_cv": _variation(self.load),
            "demand_cv": _variation(self.demand),
            "dropped_fraction": float(self.dropped) / self.tokens,
            "entropy": float(self.entropy) / self.tokens / float(uniform),
        }


def routing_metrics(layers: Mapping[str, RoutingSums]) -> Metrics:
    """`routing/<metric>` averaged over layers, and `routing/<block>/<metric>` of each."""
    by_layer = {name: sums.metrics() for name, sums in layers.items()}
    names = next(iter(by_layer.values()), {})
    mean = {f"routing/{metric}": float(np.mean([m[metric] for m in by_layer.values()])) for metric in names}
    each = {f"routing/{layer}/{metric}": v for layer, m in by_layer.items() for metric, v in m.items()}
    return mean | each


def classification_metrics(
    logits: Float[Tensor, "N classes"], labels: Int[Tensor, "N"]
) -> tuple[Metrics, Bool[Tensor, "N"]]:
    """Top-1, top-5 and balanced accuracy in [0, 1], cross-entropy; and which images were right at once.

    Balanced accuracy is the mean over the classes that occur. With five classes or fewer top-5 is 1.
    """
    logits = logits.float()
    # The rank of the true class: classes that score higher, and equals that come before it.
    true = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > true) | ((logits == true) & before)).sum(1)
    # Nothing compares with a score that is no number: it comes last.
    rank = rank.masked_fill(~true[:, 0].isfinite(), logits.shape[1])
    correct = rank == 0
    metrics = {
        "top1": float(correct.double().mean()),
        "top5": float((rank < 5).double().mean()),
        "balanced": _balanced(correct.cpu().numpy(), labels.cpu().numpy()),
        "loss": float(torch.nn.functional.cross_entropy(logits, labels)),
    }
    return metrics, correct


def _balanced(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> float:
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def _variation(values: Float[Tensor, "E"]) -> float:
    return float(values.std(correction=0) / values.mean())
