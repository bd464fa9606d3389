"""One step of the optimizer: forward and backward in parts, clip, update."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from routerbench.evaluate import weights_cast_once
from routerbench.moe.layer import MoE

SMALLEST_SCALE = 2.0**-14  # the smallest number that fp16 holds to its full precision
Images = Float[Tensor, "B C H W"]
Targets = Int[Tensor, "B"] | Float[Tensor, "B classes"]
TaskLoss = Callable[[Float[Tensor, "B classes"], Targets], Float[Tensor, ""]]
Mix = Callable[[Images, Int[Tensor, "B"], int], tuple[Images, Targets]]


class DivergedError(Exception):
    """The loss or its gradient, or the loss on the test set, is no finite number."""


@dataclass(frozen=True)
class StepResult:
    """What a step found, on the device."""

    losses: dict[str, Float[Tensor, ""]]
    """Every part of the loss by name."""
    grad_norm: Float[Tensor, ""]
    """Of the whole gradient, before it is clipped."""


@dataclass(frozen=True)
class TrainingStep:
    """A step on the task's loss plus the losses of the routers in `layers`, the MoE layers of the model."""

    model: nn.Module
    layers: Sequence[MoE]
    optimizer: torch.optim.Optimizer
    task_loss: TaskLoss
    mix: Mix | None
    """Mixes the images of a batch, given the number of the step; its labels become soft targets."""
    ema: ModelEmaV3 | None
    """The running average of the weights."""
    accumulation_steps: int
    """Parts in which a batch goes through the model; their losses count by their images."""
    clip_grad: float | None
    autocast: torch.autocast
    scaler: torch.amp.GradScaler
    device: torch.device

    def __call__(self, images: Images, labels: Int[Tensor, "B"], number: int) -> StepResult:
        """Take step `number`, counted from 0, and say what it found.

        Raises DivergedError, before a weight changes, where the loss or its gradient is not finite, but for
        a gradient that only the scale of fp16 makes so: the scaler leaves that step out.
        """
        images = images.to(self.device, non_blocking=True)
        targets: Targets = labels.to(self.device, non_blocking=True)
        if self.mix is not None:
            images, targets = self.mix(images, targets, number)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(images, targets)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self._check_finite(losses, norm, images, number + 1)
        if self.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip_grad, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for layer in self.layers:
            layer.router.after_step()
        if self.ema is not None:
            self.ema.update(self.model, step=number)
        return StepResult(losses, norm)

    def _backward(self, images: Images, targets: Targets) -> dict[str, Tensor]:
        """Add the gradient of every part of the batch; the losses of the whole."""
        losses: dict[str, Tensor] = {}
        with weights_cast_once(self.device):
            for part, its_targets in zip(
                images.chunk(self.accumulation_steps), targets.chunk(self.accumulation_steps), strict=True
            ):
                with self.autocast:
                    logits = self.model(part)
                of_part = {"task": self.task_loss(logits.float(), its_targets), **router_losses(self.layers)}
                of_part = {name: loss * (len(part) / len(images)) for name, loss in of_part.items()}
                self.scaler.scale(torch.stack(list(of_part.values())).sum()).backward()
                losses = {name: losses.get(name, 0.0) + loss.detach() for name, loss in of_part.items()}
        return losses

    def _check_finite(self, losses: dict[str, Tensor], norm: Tensor, images: Images, number: int) -> None:
        # One look at the device for both. A step later its weights would be lost, and the layer with them.
        loss, size = torch.stack([torch.stack(list(losses.values())).sum(), norm]).tolist()
        if not math.isfinite(loss):
            first = _first_spoilt_layer(self.model, images, self.autocast)
            raise DivergedError(f"the loss is {loss} at step {number}{first}")
        if math.isfinite(size):
            return
        if not self.scaler.is_enabled():
            names = [n for n, p in self.model.named_parameters() if not _is_finite(p.grad)]
            # The backward pass comes from the end.
            last = f": that of {names[-1]} is not finite" if names else ", though it is finite everywhere"
            raise DivergedError(f"the norm of the gradient is {size} at step {number}{last}")
        if self.scaler.get_scale() < SMALLEST_SCALE:
            raise DivergedError(
                f"the gradient overflows at step {number} however small the scale of precision=fp16 is: "
                "take bf16, or a smaller optim.lr"
            )


def router_losses(layers: Iterable[MoE]) -> dict[str, Tensor]:
    """The weighted auxiliary losses of the latest forward pass, each summed over layers."""
    losses: dict[str, Tensor] = {}
    for layer in layers:
        assert layer.routing is not None
        for name, loss in layer.routing.losses.items():
            losses[name] = losses[name] + loss if name in losses else loss
    return losses


@torch.no_grad()
def _first_spoilt_layer(model: nn.Module, images: Images, autocast: torch.autocast) -> str:
    """In words, the first module to give back what is not finite, in another forward pass."""
    spoilt: list[str] = []

    def look(name: str, module: nn.Module) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not _is_finite(output):
                spoilt.append(f"{name} ({type(module).__name__})")

        return module.register_forward_hook(hook)

    hooks = [look(name, module) for name, module in model.named_modules() if name]
    try:
        with autocast:
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return f": {spoilt[0]} is the first layer whose output is not finite" if spoilt else ""


def _is_finite(values: Tensor | None) -> bool:
    return values is None or bool(values.isfinite().all())
