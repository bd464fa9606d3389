"""Training: one flat loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from timm.scheduler.scheduler import Scheduler
from torch import nn

from routerbench.evaluate import Batch, Evaluation
from routerbench.metrics import RoutingSums, routing_metrics
from routerbench.moe.surgery import moe_layers
from routerbench.ranks import added, num_ranks
from routerbench.step import DivergedError, StepResult, TrainingStep

Row = dict[str, int | float]


@runtime_checkable
class Loader(Protocol):
    """Batches of an epoch, which depend on nothing but its number."""

    def __len__(self) -> int: ...
    def epoch(self, number: int, start: int = 0) -> Iterable[Batch]: ...


@dataclass
class Progress:
    """How far a run has come, over all its restarts."""

    step: int = 0
    """Steps of the optimizer."""
    epochs: int = 0
    """Whole epochs, each with the evaluation that is due after it."""
    num_images: int = 0
    seconds: float = 0.0
    """Of training alone, without evaluations and checkpoints."""
    started: float = field(default_factory=time.time)
    """When the run first began, in seconds since 1970."""
    restarts: int = 0
    peak_memory_gib: float = 0.0
    """Before the latest restart."""
    num_stored: int = 0
    """Images of the training set."""
    rows_bytes: int = 0
    """What `metrics.jsonl` held."""
    best_step: int = 0
    """Where accuracy on the minival was best; 0 before its first evaluation."""
    best_top1: float = 0.0
    """The accuracy there."""
    _since: float = 0.0

    def kept(self) -> dict[str, int | float]:
        """What a checkpoint keeps of it."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def start(self) -> None:
        """Start the clock of training."""
        self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock for what is no training."""
        self.seconds += time.perf_counter() - self._since
        yield
        self.start()


@runtime_checkable
class Checkpoints(Protocol):
    """Where the state of a run is kept while it trains."""

    def due(self, progress: Progress) -> bool:
        """Whether to save now."""
        ...

    def save(self, progress: Progress) -> None:
        """Keep the state that goes with this progress."""
        ...


def train(
    step: TrainingStep,
    loader: Loader,
    scheduler: Scheduler,
    progress: Progress,
    *,
    epochs: int,
    evaluate: Callable[[], Evaluation],
    eval_every: int,
    log: Callable[[Row], None],
    log_every_steps: int,
    checkpoints: Checkpoints,
) -> Evaluation:
    """Train on from `progress` to the end of the last epoch, and give back the evaluation of that.

    Evaluates every `eval_every` epochs and after the last, gives rows to `log`, and saves to `checkpoints`
    when they are due. Raises DivergedError.
    """
    evaluation = None
    for epoch in range(progress.epochs, epochs):
        progress.start()
        step.model.train()
        for images, labels in loader.epoch(epoch, start=progress.step - epoch * len(loader)):
            result = step(images, labels, progress.step)
            progress.step += 1
            progress.num_images += len(images) * num_ranks()
            scheduler.step_update(progress.step)
            if progress.step % log_every_steps == 0 or progress.step % len(loader) == 0:
                with progress.paused():
                    log({"step": progress.step, "epoch": epoch + 1, **_training_row(step, result)})
            if checkpoints.due(progress):
                with progress.paused():
                    checkpoints.save(progress)
        with progress.paused():
            if (epoch + 1) % eval_every == 0 or epoch + 1 == epochs:
                evaluation = evaluate()
                _check_test_loss(evaluation, progress.step)
                log({"step": progress.step, "epoch": epoch + 1, **evaluation.metrics})
            progress.epochs = epoch + 1
            if evaluation is not None and _note_best(progress, evaluation):
                checkpoints.save(progress)
    return evaluate() if evaluation is None else evaluation  # all was done but its record


def _note_best(progress: Progress, evaluation: Evaluation) -> bool:
    """Whether this is the best step so far by accuracy on the minival, where there is one."""
    top1 = evaluation.metrics.get("minival/top1", 0.0)
    if top1 <= progress.best_top1:
        return False
    progress.best_step, progress.best_top1 = progress.step, top1
    return True


def _training_row(step: TrainingStep, result: StepResult) -> Row:
    losses = {f"train/{name}_loss": loss.item() for name, loss in result.losses.items()}
    return {
        "train/lr": max(
            group["lr"] for group in step.optimizer.param_groups
        ),  # of the top, where they differ
        **losses,
        "train/loss": sum(losses.values()),
        "train/grad_norm": result.grad_norm.item(),
        **_routing(step.model),
    }


def _routing(model: nn.Module) -> Row:
    layers = moe_layers(model)
    sums = {name: RoutingSums.of(layer.routing) for name, layer in layers.items() if layer.routing}
    metrics = {name: of_layer.metrics() for name, of_layer in added(sums).items()}
    return {f"train/{name}": value for name, value in routing_metrics(metrics).items()}


def _check_test_loss(evaluation: Evaluation, step: int) -> None:
    loss = evaluation.metrics["test/loss"]
    if not math.isfinite(loss):
        raise DivergedError(f"the test loss is {loss} at step {step}")
