"""One configuration -> one record. With `parts` the only reader of the configuration."""

import hashlib
import logging
import os
import shutil
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from timm.utils.random import random_seed
from torch import nn

from routerbench import records
from routerbench.attention import choose_attention
from routerbench.autotune import autotune, use_backend
from routerbench.costs import MemoryMeter, static_costs
from routerbench.data.image_files import CorruptImageError
from routerbench.evaluate import evaluate
from routerbench.identity import group_id, identity, run_id
from routerbench.moe.surgery import take_shape
from routerbench.parts import (
    Data,
    choose_device,
    load_data,
    load_weights,
    optimizer_and_scheduler,
    start,
)
from routerbench.progress import display
from routerbench.provenance import device_name, provenance
from routerbench.tracking import mirror
from routerbench.train import DivergedError, Row, train
from routerbench.weights import FILE_NAME, Weights, write_weights

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The training's random numbers must not hang on how many a router's initialisation drew.
TRAINING_SEED_OFFSET = 1_000_003


def run(config: DictConfig, *, command: str, console: Console, title: str) -> str:
    """Train, evaluate and record one configuration, unless that is done; gives back what became of it.

    That is the record's status, or `running` where another process is at it. Raises ValueError for data or
    weights that cannot be used, before anything is written, and CorruptImageError in the midst of a run.
    """
    settings = identity(config)
    folder = records.run_folder(Path(config.runtime.results), run_id(settings))
    earlier = _earlier(folder, config.runtime.retry)
    if earlier is None:
        data = load_data(config)
        weights = load_weights(config, data.num_classes)
        try:
            with records.claim(folder):
                earlier = _earlier(folder, config.runtime.retry)
                if earlier is None:
                    show = partial(display, console, title, config.epochs)
                    return _run_and_record(config, settings, data, weights, folder, command, show)
        except records.RunningError as running:
            console.print(f"{title}  is being trained by {running}", markup=False, highlight=False)
            return "running"
    console.print(f"{title}  {earlier} before", markup=False, highlight=False)
    return earlier


def _earlier(folder: Path, retry: bool) -> str | None:
    """What became of the run before, if that is to stand."""
    try:
        record = records.read_record(folder)
    except ValueError:
        if not retry:
            raise
        record = None
    if record is None or (retry and record["status"] != "done"):
        return None
    return record["status"]


def _run_and_record(
    config: DictConfig,
    settings: dict[str, Any],
    data: Data,
    weights: Weights | None,
    folder: Path,
    command: str,
    show: Callable[[int], AbstractContextManager[Callable[[Row], None]]],
) -> str:
    started = datetime.now(timezone.utc)
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    name, rows = run_id(settings), folder / "metrics.jsonl"
    origin = provenance(choose_device(config.runtime.device), command)  # before the code can change
    for earlier in ("record.json", "correct.npy", "routing.npz", FILE_NAME, "metrics.jsonl"):
        (folder / earlier).unlink(missing_ok=True)
    records.write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    with (
        mirror(folder, name, group_id(settings), settings, config.runtime.wandb) as log_to_wandb,
        show(config.epochs * len(data.train)) as log_to_screen,
    ):

        def log(row: Row) -> None:
            records.append_row(rows, row)
            log_to_wandb(row)
            log_to_screen(row)

        outcome = _outcome(folder, partial(_measure, config, data, weights, folder, log))
    times = {"started": started.isoformat(), "finished": datetime.now(timezone.utc).isoformat()}
    ran = outcome.pop("ran")
    record = {"run_id": name, **outcome, "config": settings, "provenance": origin | ran | times}
    records.write_record(folder, record)
    return outcome["status"]


def _outcome(folder: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run came to: an error is an outcome too, which the board counts."""
    nothing = {"metrics": {}, "cost": {}, "placement_blocks": [], "ran": {}}
    try:
        return {"status": "done", **measure(), "error": None}
    except CorruptImageError:  # the input is at fault, not the configuration: nothing is left of the run
        shutil.rmtree(folder)
        raise
    except DivergedError as error:
        return {"status": "diverged", **nothing, "error": str(error)}
    except torch.OutOfMemoryError as error:
        return {"status": "oom", **nothing, "error": str(error)}
    except Exception as error:
        if "can't allocate memory" in str(error):  # the allocator of the CPU has no error of its own
            return {"status": "oom", **nothing, "error": str(error)}
        logger.error("the run failed: %s: %s", type(error).__name__, error)
        return {"status": "failed", **nothing, "error": traceback.format_exc()}


def _measure(
    config: DictConfig, data: Data, weights: Weights | None, folder: Path, log: Callable[[Row], None]
) -> dict[str, Any]:
    """Build, train and evaluate; the metrics and costs of the record."""
    device = choose_device(config.runtime.device)
    memory = MemoryMeter.start(device)
    if config.runtime.deterministic:  # what cuBLAS asks for then, before it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.runtime.deterministic)
    random_seed(config.seed)
    model, blocks = start(config, data.num_classes, weights)
    model.to(device)
    image_size = (config.data.image_size, config.data.image_size)
    take_shape(model, image_size)
    costs = static_costs(model, image_size)
    autocast = torch.autocast(device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32")
    attention = choose_attention(model, device, PRECISIONS[config.precision])
    backend = _backend(config, model, device, autocast)
    memory.forget()  # what the measurement of backends took
    optimizer, scheduler = optimizer_and_scheduler(model, config.optim, config.epochs, len(data.train))
    random_seed(config.seed + TRAINING_SEED_OFFSET)
    trained = train(
        model,
        data.train,
        optimizer,
        scheduler,
        epochs=config.epochs,
        accumulation_steps=config.optim.accumulation_steps,
        clip_grad=config.optim.clip_grad,
        autocast=autocast,
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        device=device,
        evaluate=lambda: evaluate(model, data.test.epoch(0), device, autocast),
        eval_every=config.eval_every,
        log=log,
        log_every_steps=config.runtime.log_every_steps,
    )
    records.write_correct(folder, trained.evaluation.correct)
    records.write_maps(folder, trained.evaluation.maps)
    measured = {
        "images_per_second": trained.num_images / trained.seconds,
        "train_seconds": trained.seconds,
        "peak_memory_gib": memory.peak_gib(),
    }
    write_weights(folder, model)
    return {
        "metrics": trained.evaluation.metrics,
        "cost": asdict(costs) | measured,
        "placement_blocks": blocks,
        "ran": {"attention": attention, "backend": backend},
    }


def _backend(
    config: DictConfig, model: nn.Module, device: torch.device, autocast: torch.autocast
) -> str | None:
    """Give the MoE layers the configured backend, or that which all seeds of the configuration share."""
    if config.runtime.backend != "auto":
        return use_backend(model, config.runtime.backend)
    where = hashlib.sha256(f"{device_name(device)} torch {torch.__version__}".encode()).hexdigest()[:10]
    return autotune(
        model,
        (config.data.image_size, config.data.image_size),
        config.batch_size // config.optim.accumulation_steps,
        autocast,
        Path(config.runtime.results, "backends", f"{group_id(identity(config))}-{where}.json"),
    )
