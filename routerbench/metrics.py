"""Metrics: what was predicted and what the routers did, in the same words for every router."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from routerbench.moe.plan import Plan
from routerbench.moe.router import Routing

Metrics = dict[str, float]


@dataclass
class RoutingSums:
    """Sums over the tokens of one layer, from which its metrics are made; they stay on the device."""

    load: Float[Tensor, "E"]
    demand: Float[Tensor, "E"]
    of_tokens: dict[str, Float[Tensor, ""]]
    """Sums over tokens."""
    of_groups: dict[str, Float[Tensor, ""]]
    """Sums over groups."""
    num_tokens: int
    num_groups: int

    @classmethod
    @torch.no_grad()
    def of(cls, routing: Routing) -> "RoutingSums":
        """The sums of one decision."""
        plan = routing.plan
        num_groups, num_tokens, _ = plan.gates.shape
        return cls(
            load=plan.load.sum(0),
            demand=plan.demand.sum(0),
            of_tokens=_leaning(plan) | _service(plan),
            of_groups=_mixing(plan) | {name: num_groups * value for name, value in routing.measures.items()},
            num_tokens=num_groups * num_tokens,
            num_groups=num_groups,
        )

    def __add__(self, other: "RoutingSums") -> "RoutingSums":
        return RoutingSums(
            self.load + other.load,
            self.demand + other.demand,
            {name: value + other.of_tokens[name] for name, value in self.of_tokens.items()},
            {name: value + other.of_groups[name] for name, value in self.of_groups.items()},
            self.num_tokens + other.num_tokens,
            self.num_groups + other.num_groups,
        )

    def metrics(self) -> Metrics:
        """Metrics of the layer by name, the same for every router: `docs/metrics.md` says what each is."""
        load, demand = self.load / self.load.mean(), self.demand / self.demand.mean()
        metrics = {
            "load_cv": load.std(correction=0),
            "load_max_over_mean": load.max(),
            "dead_expert_fraction": (load == 0).to(load.dtype).mean(),
            "demand_cv": demand.std(correction=0),
            "demand_max_over_mean": demand.max(),
            **{name: value / self.num_tokens for name, value in self.of_tokens.items()},
            **{name: value / self.num_groups for name, value in self.of_groups.items()},
        }
        # One look at the device for all of them.
        values = torch.stack([value.to(load.dtype) for value in metrics.values()]).tolist()
        return dict(zip(metrics, values, strict=True))


def _leaning(plan: Plan) -> dict[str, Float[Tensor, ""]]:
    """How sure the gates are, summed over tokens."""
    gates = plan.gates
    first, second = F.pad(gates, (0, 1)).topk(2).values.unbind(-1)  # of one expert the second is 0
    return {
        "entropy": torch.special.entr(gates).sum() / math.log(max(gates.shape[-1], 2)),
        "margin": (first - second).sum(),
        "confidence": first.sum(),
    }


def _service(plan: Plan) -> dict[str, Float[Tensor, ""]]:
    """What tokens got, summed over tokens."""
    serves, first = plan.serves, plan.gates.argmax(-1, keepdim=True)
    served = serves.sum(-1)
    flags = {
        "dropped_fraction": plan.dropped,
        "first_choice_fraction": serves.gather(-1, first),
        **{f"served_by_{count}_fraction": served >= count for count in (1, 2, 4)},
    }
    return {name: flag.sum().to(plan.gates.dtype) for name, flag in flags.items()}


def _mixing(plan: Plan) -> dict[str, Float[Tensor, ""]]:
    """What slots are made of, summed over groups."""
    return {name: value.sum() for name, value in vars(plan.mixing()).items()}


def routing_metrics(by_layer: Mapping[str, Metrics]) -> Metrics:
    """`routing/<metric>` averaged over layers, and `routing/<block>/<metric>` of each."""
    names = next(iter(by_layer.values()), {})
    mean = {f"routing/{metric}": float(np.mean([m[metric] for m in by_layer.values()])) for metric in names}
    each = {f"routing/{layer}/{metric}": v for layer, m in by_layer.items() for metric, v in m.items()}
    return mean | each


def classification_metrics(
    logits: Float[Tensor, "N classes"],
    labels: Int[Tensor, "N"],
    task_loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> tuple[Metrics, Bool[Tensor, "N"]]:
    """Top-1, top-5 and balanced accuracy in [0, 1], the task's loss; and which images were right at once.

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
        "loss": float(task_loss(logits, labels)),
    }
    return metrics, correct


def _balanced(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> float:
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))
