"""One configuration, built, trained and evaluated: what its record says of it."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from timm.utils import ModelEmaV3
from timm.utils.random import random_seed
from torch import nn

from routerbench import records
from routerbench.attention import choose_attention
from routerbench.autotune import autotune, use_backend
from routerbench.checkpoint import RunCheckpoints
from routerbench.costs import Costs, MemoryMeter, static_costs
from routerbench.data.corruptions import corruption_means
from routerbench.data.extra import ExtraSet
from routerbench.data.orders import Share
from routerbench.device import PRECISIONS
from routerbench.evaluate import Batch, Evaluation, evaluate, evaluate_ranked, predict
from routerbench.fewshot import fewshot
from routerbench.identity import group_id, identity
from routerbench.linear_probe import linear_probe
from routerbench.metrics import Metrics, classification_metrics
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.parallel import make_mesh, network, spread
from routerbench.parts import (
    Data,
    FewShot,
    Probed,
    checkpoint_activations,
    choose_device,
    load_data,
    load_extra,
    load_fewshot,
    load_linear_probe,
    load_weights,
    mix,
    optimizer_and_scheduler,
    start,
    task_loss,
    test_loss,
)
from routerbench.provenance import device_name
from routerbench.ranks import agreed, gathered, num_ranks, rank
from routerbench.signals import Warned
from routerbench.state import State
from routerbench.step import TrainingStep
from routerbench.train import Progress, Row, train
from routerbench.weights import Weights, write_weights

logger = logging.getLogger(__name__)

# The training's random numbers must not hang on how many a router's initialisation drew.
TRAINING_SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class Inputs:
    """What is read for a run."""

    data: Data
    weights: Weights | None
    extra: dict[str, ExtraSet]
    """Further image sets, by name."""
    fewshot: FewShot | None
    linear_probe: Probed | None

    def close(self) -> None:
        """Stop the processes that decode images."""
        self.data.close()


def load_inputs(config: DictConfig) -> Inputs:
    """Read what a run needs; raises ValueError for what is missing or does not fit."""
    share = Share(rank(), num_ranks(), config.optim.accumulation_steps)
    data = load_data(config, share)
    return Inputs(
        data,
        load_weights(config, data.num_classes),
        load_extra(config, data.class_names, share),
        load_fewshot(config, data),
        load_linear_probe(config, data),
    )


@dataclass(frozen=True)
class Prepared:
    """A model on its device, and how it is computed."""

    model: nn.Module
    blocks: list[int]
    """Those that have MoE layers."""
    device: torch.device
    autocast: torch.autocast
    costs: Costs
    chosen: dict[str, str | None]
    """Attention and backend."""


def measure(
    config: DictConfig,
    inputs: Inputs,
    folder: Path,
    log: Callable[[Row], None],
    warned: Warned,
    check: Callable[[], None],
    accumulation_steps: int,
) -> dict[str, Any]:
    """Build, train and evaluate; the metrics and costs of the record, and what the run found out on its way.

    Batches go through the model in `accumulation_steps` parts. Leaves weights and maps in `folder`, where
    `check` raises an error once nothing may be written there any more. Raises DivergedError, RequeueError
    where a scheduler `warned` the run, and UnwritableError.
    """
    data, memory = inputs.data, MemoryMeter.start(choose_device(config.runtime.device))
    prepared = _prepare(config, inputs)
    memory.forget()  # what the measurement of backends took
    model, device, autocast = prepared.model, prepared.device, prepared.autocast
    mesh = make_mesh(config.parallel, device)
    ema = _average(model, config.ema, cut=config.parallel.shard > 1)
    models = {"raw": model} if ema is None else {"raw": model, "ema": ema.module}
    for each in models.values():  # what is spread cannot be copied
        spread(each, mesh)
    optimizer, scheduler = optimizer_and_scheduler(model, config.optim, config.epochs, len(data.train))
    ranked = "ema" if ema is not None and config.ema.ranked else "raw"
    if config.runtime.compile:
        model.compile()
    random_seed(config.seed + TRAINING_SEED_OFFSET)
    step = TrainingStep(
        model,
        list(moe_layers(model).values()),
        optimizer,
        task_loss(config),
        mix=mix(config, data.num_classes, len(data.train)),
        ema=ema,
        accumulation_steps=accumulation_steps,
        clip_grad=config.optim.clip_grad,
        autocast=autocast,
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        device=device,
        network=network(model, mesh),
    )
    checkpoints = RunCheckpoints(
        folder / "checkpoint",
        folder / "metrics.jsonl",
        State(model, optimizer, step.scaler, ema, device),
        warned,
        every_steps=config.runtime.checkpoint_every_steps,
        every_minutes=config.runtime.checkpoint_every_minutes,
        keep=config.runtime.keep_checkpoints,
        peak_memory_gib=memory.peak_gib,
        check=check,
    )
    progress = checkpoints.restore()
    progress.num_stored = _same_images(progress.num_stored, len(data.train.dataset))
    if progress.restarts and rank() == 0:
        logger.warning("going on from step %d, restart %d", progress.step, progress.restarts)
    watched = partial(checkpoints.watched, progress=progress)
    of_one = partial(_evaluate, config, data, device, autocast, watched)
    evaluation = train(
        step,
        data.train,
        scheduler,
        progress,
        epochs=config.epochs,
        evaluate=partial(evaluate_ranked, of_one, models, ranked),
        eval_every=config.eval_every,
        log=log,
        log_every_steps=config.runtime.log_every_steps,
        checkpoints=checkpoints,
    )
    further = _further(inputs, models[ranked], device, autocast, watched)
    check()
    checksums = {kind: write_weights(folder, trained, kind) for kind, trained in models.items()}
    if rank() == 0:
        records.write_correct(folder, evaluation.correct)
        records.write_maps(folder, evaluation.maps)
    return {
        "metrics": evaluation.metrics | further,
        "evaluation": {"weights": ranked},
        "cost": asdict(prepared.costs) | _measured(progress, memory.peak_gib()),
        "placement_blocks": prepared.blocks,
        "ran": prepared.chosen | _history(config, progress, data) | {"weights_sha256": checksums},
    }


def _prepare(config: DictConfig, inputs: Inputs) -> Prepared:
    """The model as it is before it is trained, and the choices of how it is computed here."""
    device, precision = choose_device(config.runtime.device), PRECISIONS[config.precision]
    if config.runtime.deterministic:  # what cuBLAS asks for then, before it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.runtime.deterministic)
    random_seed(config.seed)
    model, blocks = start(config, inputs.data.num_classes, inputs.weights)
    model.to(device)
    image_size = (config.data.image_size, config.data.image_size)
    take_shape(model, image_size)
    costs = static_costs(model, image_size)
    autocast = torch.autocast(device.type, precision, enabled=config.precision != "fp32")
    attention = choose_attention(model, device, precision)
    chosen = {"attention": attention, "backend": _backend(config, model, device, autocast)}
    if config.runtime.channels_last:
        model.to(memory_format=torch.channels_last)
    if config.runtime.activation_checkpointing:
        checkpoint_activations(model, config.model.name)
    return Prepared(model, blocks, device, autocast, costs, chosen)


def _backend(
    config: DictConfig, model: nn.Module, device: torch.device, autocast: torch.autocast
) -> str | None:
    """Give the MoE layers the configured backend, or that which all seeds of the configuration share."""
    if config.runtime.backend != "auto":
        return use_backend(model, config.runtime.backend)
    if config.parallel.expert > 1:  # the only one that can send slots elsewhere
        return use_backend(model, "bmm")
    where = hashlib.sha256(f"{device_name(device)} torch {torch.__version__}".encode()).hexdigest()[:10]
    measured = partial(
        autotune,
        model,
        (config.data.image_size, config.data.image_size),
        config.batch_size // config.optim.accumulation_steps // num_ranks(),
        autocast,
        Path(config.runtime.results, "backends", f"{group_id(identity(config))}-{where}.json"),
    )
    backend = agreed(measured)
    return None if backend is None else use_backend(model, backend)


def _same_images(before: int, now: int) -> int:
    """How many images the training set has; raises ValueError where they have changed since a checkpoint."""
    if before not in (0, now):
        raise ValueError(
            f"the training set has {now} images, and had {before} when the checkpoint was written: "
            "bring them back, or remove the run's folder to start again"
        )
    return now


def _average(model: nn.Module, ema: DictConfig, cut: bool) -> ModelEmaV3 | None:
    """The running average of the weights, if any; `cut` says whether ranks are to share them out."""
    if ema.decay is None:
        return None
    # One kernel does not take cut tensors and whole ones.
    return ModelEmaV3(model, decay=ema.decay, use_warmup=ema.warmup, foreach=not cut)


def _evaluate(
    config: DictConfig,
    data: Data,
    device: torch.device,
    autocast: torch.autocast,
    watched: Callable[[Iterable[Batch]], Iterable[Batch]],
    model: nn.Module,
) -> Evaluation:
    """On the test set, and on the minival where there is one."""
    loss = test_loss(config)
    evaluation = evaluate(model, data.test.epoch(0), device, autocast, loss, watched)
    if data.minival is None:
        return evaluation
    held_out = predict(model, data.minival.epoch(0), device, autocast, watched)
    metrics = {f"minival/{name}": value for name, value in classification_metrics(*held_out, loss)[0].items()}
    return replace(evaluation, metrics=evaluation.metrics | metrics)


def _further(
    inputs: Inputs,
    model: nn.Module,
    device: torch.device,
    autocast: torch.autocast,
    watched: Callable[[Iterable[Batch]], Iterable[Batch]],
) -> Metrics:
    """What is evaluated at the end alone: further image sets, and the probes."""
    metrics: Metrics = {}
    for name, images in inputs.extra.items():
        with closing(images.loader) as loader:
            logits, labels = predict(model, loader.epoch(0), device, autocast, watched)
        metrics |= {f"{name}/{metric}": value for metric, value in images.accuracies(logits, labels).items()}
    metrics |= corruption_means(metrics)
    few = inputs.fewshot
    if few is not None:  # every rank on all images, for the model may need them all
        metrics |= fewshot(model, few.probe, few.labels, few.load, few.test.epoch(0), device, autocast)
    probed = inputs.linear_probe
    if probed is not None:
        metrics |= linear_probe(
            model, probed.probe, probed.train.epoch(0), probed.test.epoch(0), device, autocast
        )
    return metrics


def _history(config: DictConfig, progress: Progress, data: Data) -> dict[str, Any]:
    """How the run went, for its provenance."""
    return {
        "parallel": {axis: int(size) for axis, size in config.parallel.items()},
        "started": datetime.fromtimestamp(progress.started, timezone.utc).isoformat(),
        "restarts": progress.restarts,
        "best_step": progress.best_step or None,
        "corrupt_images": len(set().union(*gathered(data.skipped))),
    }


def _measured(progress: Progress, peak_gib: float | None) -> dict[str, float | None]:
    return {
        "images_per_second": progress.num_images / progress.seconds,
        "train_seconds": progress.seconds,
        "peak_memory_gib": None if peak_gib is None else max(peak_gib, progress.peak_memory_gib),
    }
