"""Training: one flat loop."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from routerbench.evaluate import Batch, Evaluation, weights_cast_once
from routerbench.metrics import RoutingSums, routing_metrics
from routerbench.moe.layer import MoE
from routerbench.moe.surgery import moe_layers

Row = dict[str, int | float]


@runtime_checkable
class Loader(Protocol):
    """Batches of an epoch, which depend on nothing but its number."""

    def __len__(self) -> int: ...
    def epoch(self, number: int) -> Iterable[Batch]: ...


class DivergedError(Exception):
    """The loss, in training or on the test set, is no finite number."""


@dataclass(frozen=True)
class Trained:
    """What training came to."""

    evaluation: Evaluation
    """Of the last epoch."""
    seconds: float
    """Of training alone, without the evaluations."""
    num_images: int


def train(
    model: nn.Module,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler,
    *,
    epochs: int,
    accumulation_steps: int,
    clip_grad: float | None,
    autocast: torch.autocast,
    scaler: torch.amp.GradScaler,
    device: torch.device,
    evaluate: Callable[[], Evaluation],
    eval_every: int,
    log: Callable[[Row], None],
    log_every_steps: int,
) -> Trained:
    """Train for whole epochs, evaluate every `eval_every` and after the last, and give rows to `log`.

    Raises DivergedError, with the first step whose loss is not finite, when that is next looked at.
    """
    step, num_images, seconds = 0, 0, 0.0
    unseen: list[Tensor] = []  # losses that are still on the device: to look at each would make it wait
    evaluation = None
    layers = list(moe_layers(model).values())  # to look for them costs a small model as much as its loss
    for epoch in range(epochs):
        started = time.perf_counter()
        model.train()
        for images, labels in loader.epoch(epoch):
            losses = training_step(
                model,
                layers,
                images.to(device, non_blocking=True),
                labels.to(device, non_blocking=True),
                optimizer,
                accumulation_steps=accumulation_steps,
                clip_grad=clip_grad,
                autocast=autocast,
                scaler=scaler,
            )
            unseen.append(torch.stack(list(losses.values())).sum())
            step += 1
            num_images += len(images)
            scheduler.step_update(step)
            if step % log_every_steps == 0 or step % len(loader) == 0:
                _check_finite(unseen, step)
                unseen.clear()
                seconds += time.perf_counter() - started  # to write a row is no training
                lr = optimizer.param_groups[0]["lr"]
                log(
                    {
                        "step": step,
                        "epoch": epoch + 1,
                        "train/lr": lr,
                        **_losses(losses),
                        **_routing(model),
                    }
                )
                started = time.perf_counter()
        seconds += time.perf_counter() - started
        if (epoch + 1) % eval_every == 0 or epoch + 1 == epochs:
            evaluation = evaluate()
            if not math.isfinite(evaluation.metrics["test/loss"]):
                raise DivergedError(f"the test loss is {evaluation.metrics['test/loss']} at step {step}")
            log({"step": step, "epoch": epoch + 1, **evaluation.metrics})
    assert evaluation is not None  # the last epoch is evaluated
    return Trained(evaluation, seconds, num_images)


def training_step(
    model: nn.Module,
    layers: Sequence[MoE],
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    accumulation_steps: int,
    clip_grad: float | None,
    autocast: torch.autocast,
    scaler: torch.amp.GradScaler,
) -> dict[str, Tensor]:
    """One step on cross-entropy plus the losses of the routers in `layers`, the model's MoE layers.

    Gives back every part of the loss by name.
    The batch goes through the model in `accumulation_steps` parts, whose losses count by their images.
    """
    optimizer.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = {}
    with weights_cast_once(images.device):
        for part, its_labels in zip(
            images.chunk(accumulation_steps), labels.chunk(accumulation_steps), strict=True
        ):
            with autocast:
                logits = model(part)
            of_part = {"task": F.cross_entropy(logits.float(), its_labels), **router_losses(layers)}
            of_part = {name: loss * (len(part) / len(images)) for name, loss in of_part.items()}
            scaler.scale(torch.stack(list(of_part.values())).sum()).backward()
            losses = {name: losses.get(name, 0.0) + loss.detach() for name, loss in of_part.items()}
    if clip_grad is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
    scaler.step(optimizer)
    scaler.update()
    for layer in layers:
        layer.router.after_step()
    return losses


def router_losses(layers: Iterable[MoE]) -> dict[str, Tensor]:
    """The weighted auxiliary losses of the latest forward pass, each summed over layers."""
    losses: dict[str, Tensor] = {}
    for layer in layers:
        assert layer.routing is not None
        for name, loss in layer.routing.losses.items():
            losses[name] = losses[name] + loss if name in losses else loss
    return losses


def _check_finite(latest: list[Tensor], step: int) -> None:
    """Raise DivergedError unless the losses of the latest steps, up to `step`, are all finite."""
    for number, loss in enumerate(torch.stack(latest).tolist(), start=step - len(latest) + 1):
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {number}")


def _losses(losses: dict[str, Tensor]) -> Row:
    row = {f"train/{name}_loss": loss.item() for name, loss in losses.items()}
    return row | {"train/loss": sum(row.values())}


def _routing(model: nn.Module) -> Row:
    layers = moe_layers(model)
    metrics = {
        name: RoutingSums.of(layer.routing).metrics() for name, layer in layers.items() if layer.routing
    }
    return {f"train/{name}": value for name, value in routing_metrics(metrics).items()}
