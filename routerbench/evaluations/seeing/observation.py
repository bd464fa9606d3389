"""What a model makes of test images, and what each of them got of the experts."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from routerbench.costs import ExecutedFlops
from routerbench.evaluate import Batch, predictions
from routerbench.load import FinishedRun
from routerbench.metrics import Metrics, classification_metrics
from routerbench.moe.surgery import moe_layers


@dataclass(frozen=True)
class Observation:
    """One pass over images, in their order; L are the MoE layers, in the order of the forward pass."""

    logits: Float32[np.ndarray, "N classes"]
    labels: Int64[np.ndarray, "N"]
    slots: Float32[np.ndarray, "N L"]
    """Slots that the tokens of each image fill."""
    dropped: Float32[np.ndarray, "N L"]
    """Fraction of its tokens that no slot holds."""
    seconds: float
    """Of the forward passes alone."""

    @cached_property
    def predicted(self) -> Int64[np.ndarray, "N"]:
        """The class of the largest logit, of equal ones the first."""
        return self.logits.argmax(1)

    @property
    def correct(self) -> Bool[np.ndarray, "N"]:
        """Whether that is the label."""
        return self.predicted == self.labels

    @property
    def confidence(self) -> Float32[np.ndarray, "N"]:
        """The softmax of the largest logit."""
        return torch.from_numpy(self.logits).softmax(1).amax(1).numpy()

    def flops(self, costs: ExecutedFlops) -> Float[np.ndarray, "N"]:
        """What each image took: all that is fixed, and its filled slots."""
        return costs.fixed + self.slots.astype(np.float64) @ np.array(list(costs.per_slot.values()))

    def metrics(self, costs: ExecutedFlops) -> Metrics:
        """Accuracies as everywhere; executed FLOPs, filled slots and dropped tokens, means over images."""
        judged, _ = classification_metrics(torch.from_numpy(self.logits), torch.from_numpy(self.labels))
        return {
            **judged,
            "executed_flops_per_image": float(self.flops(costs).mean()),
            "slots_per_image": float(self.slots.sum(1).mean()),
            "dropped_fraction": float(self.dropped.mean()) if self.dropped.size else 0.0,
            "images_per_second": len(self.labels) / self.seconds,
        }


@torch.no_grad()
def observe(run: FinishedRun, batches: Iterable[Batch]) -> Observation:
    """Send these images through the model of the run, as its layers are set now."""
    layers = list(moe_layers(run.model).values())
    started, seconds = 0.0, 0.0

    def timed(own: Iterable[Batch]) -> Iterator[Batch]:
        nonlocal started
        for batch in own:
            started = time.perf_counter()
            yield batch

    logits, labels, slots, dropped = [], [], [], []
    for scores, truth in predictions(run.model, batches, run.device, run.autocast, timed):
        logits.append(scores.float().cpu())  # waits for the device
        seconds += time.perf_counter() - started
        labels.append(truth.cpu())
        plans = [layer.routing.plan for layer in layers if layer.routing is not None]
        slots.append(_of_images([plan.slots_taken for plan in plans], len(truth)).cpu())
        dropped.append(_of_images([plan.dropped.float() for plan in plans], len(truth), mean=True).cpu())
    return Observation(
        *(torch.cat(parts).numpy() for parts in (logits, labels, slots, dropped)), seconds=seconds
    )


def _of_images(of_layers: list[Tensor], num_images: int, mean: bool = False) -> Float[Tensor, "B L"]:
    """The sums, or means, over the tokens of each image of what layers say of theirs (G, S)."""
    images = [values.reshape(num_images, -1) for values in of_layers]
    columns = [values.mean(1) if mean else values.sum(1) for values in images]
    return torch.stack(columns, 1) if columns else torch.zeros(num_images, 0)
