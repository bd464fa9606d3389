"""One configuration -> one record. With `parts` the only reader of the configuration."""

import hashlib
import logging
import os
import shutil
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from timm.utils import ModelEmaV3
from timm.utils.random import random_seed
from torch import nn

from routerbench import records
from routerbench.attention import choose_attention
from routerbench.autotune import autotune, use_backend
from routerbench.checkpoint import RunCheckpoints
from routerbench.config import can_part
from routerbench.costs import MemoryMeter, static_costs
from routerbench.data.image_files import CorruptImageError
from routerbench.data.orders import Share
from routerbench.evaluate import Evaluation, evaluate, evaluate_ranked
from routerbench.identity import group_id, identity, run_id
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.parallel import make_mesh, network, spread
from routerbench.parts import (
    Data,
    checkpoint_activations,
    choose_device,
    load_data,
    load_weights,
    mix,
    optimizer_and_scheduler,
    start,
    task_loss,
    test_loss,
)
from routerbench.progress import display
from routerbench.provenance import device_name, provenance
from routerbench.ranks import agreed, checked_by_all, num_ranks, rank
from routerbench.signals import RequeueError, Warned
from routerbench.state import State
from routerbench.step import DivergedError, TrainingStep
from routerbench.tracking import mirror
from routerbench.train import Row, train
from routerbench.weights import FILES, Weights, write_weights

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The training's random numbers must not hang on how many a router's initialisation drew.
TRAINING_SEED_OFFSET = 1_000_003


def run(config: DictConfig, *, command: str, console: Console, title: str, warned: Warned) -> str:
    """Train, evaluate and record one configuration, unless that is done; gives back what became of it.

    That is the record's status, or `running` where another process is at it. What was interrupted goes on
    from its latest checkpoint. Raises ValueError for data or weights that cannot be used, before anything is
    written, CorruptImageError in the midst of a run, and RequeueError once the state of a run is kept whose
    scheduler `warned` it.
    """
    settings = identity(config)
    folder = records.run_folder(Path(config.runtime.results), run_id(settings))
    look = partial(agreed, partial(_earlier, folder, config.runtime.retry))
    earlier = look()
    if earlier is None:
        share = Share(rank(), num_ranks(), config.optim.accumulation_steps)
        data = checked_by_all(lambda: load_data(config, share))
        weights = checked_by_all(lambda: load_weights(config, data.num_classes))
        try:
            with ExitStack() as claimed:
                agreed(lambda: claimed.enter_context(records.claim(folder)))
                earlier = look()
                if earlier is None:
                    show = partial(display, console, title, config.epochs)
                    return _run_and_record(config, settings, data, weights, folder, command, show, warned)
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
    warned: Warned,
) -> str:
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    name, rows = run_id(settings), folder / "metrics.jsonl"
    origin = provenance(choose_device(config.runtime.device), command)  # before the code can change
    started = datetime.now(timezone.utc).isoformat()
    if rank() == 0:
        _clear(folder)
        records.write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    wandb_mode = config.runtime.wandb if rank() == 0 else "disabled"
    with (
        mirror(folder, name, group_id(settings), settings, wandb_mode) as log_to_wandb,
        show(config.epochs * len(data.train)) as log_to_screen,
    ):

        def log(row: Row) -> None:
            if rank() == 0:
                records.append_row(rows, row)
                log_to_wandb(row)
                log_to_screen(row)

        measure = partial(_measure, config, data, weights, folder, log, warned)
        outcome, accumulation_steps = _with_fewer_images_at_once(config, partial(_outcome, folder, measure))
    finished = datetime.now(timezone.utc).isoformat()
    origin |= {"accumulation_steps": accumulation_steps, "started": started, "finished": finished}
    record = {"run_id": name, **outcome, "config": settings, "provenance": origin | outcome.pop("ran")}
    if rank() == 0:
        records.write_record(folder, record)
    return outcome["status"]


def _clear(folder: Path) -> None:
    """Take away what an earlier end of the run left; what only went wrong on the way goes on from there."""
    try:
        record = records.read_record(folder)
    except ValueError:
        record = None
    if record is not None and record["status"] == "diverged":  # it would again
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    for earlier in ("record.json", "correct.npy", "routing.npz", *FILES.values()):
        (folder / earlier).unlink(missing_ok=True)


def _with_fewer_images_at_once(
    config: DictConfig, attempt: Callable[[int], dict[str, Any]]
) -> tuple[dict[str, Any], int]:
    """What a run comes to and the parts of its batches: twice as many after each lack of memory, if asked."""
    parts = config.optim.accumulation_steps
    while (outcome := attempt(parts))["status"] == "oom":
        outcome["error"] = (
            f"out of memory with {config.batch_size // parts} images at once: give runtime.retry_oom=true, "
            f"optim.accumulation_steps={2 * parts} or a smaller batch_size ({_first_line(outcome['error'])})"
        )
        logger.error(outcome["error"])
        if not config.runtime.retry_oom or not can_part(config, 2 * parts):
            break
        parts *= 2
    return outcome, parts


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _outcome(
    folder: Path, measure: Callable[[int], dict[str, Any]], accumulation_steps: int
) -> dict[str, Any]:
    """What a run came to: an error is an outcome too, which the board counts."""
    nothing = {"metrics": {}, "cost": {}, "placement_blocks": [], "ran": {}}
    try:
        return {"status": "done", **measure(accumulation_steps), "error": None}
    except RequeueError:
        raise
    except CorruptImageError:  # the input is at fault, not the configuration: nothing is left of the run
        shutil.rmtree(folder, ignore_errors=num_ranks() > 1)
        raise
    except DivergedError as error:
        return {"status": "diverged", **nothing, "error": str(error)}
    except Exception as error:
        if num_ranks() > 1:  # or of a rank that is dead, which is no outcome: started again, the run goes on
            raise
        # The allocator of the CPU has no error of its own.
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            return {"status": "oom", **nothing, "error": str(error)}
        logger.error("the run failed: %s: %s", type(error).__name__, error)
        return {"status": "failed", **nothing, "error": traceback.format_exc()}


def _measure(
    config: DictConfig,
    data: Data,
    weights: Weights | None,
    folder: Path,
    log: Callable[[Row], None],
    warned: Warned,
    accumulation_steps: int,
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
    if config.runtime.channels_last:
        model.to(memory_format=torch.channels_last)
    if config.runtime.activation_checkpointing:
        checkpoint_activations(model, config.model.name)
    ema = None
    if config.ema.decay is not None:
        ema = ModelEmaV3(
            model,
            decay=config.ema.decay,
            use_warmup=config.ema.warmup,
            foreach=config.parallel.shard == 1,  # one kernel does not take whole and cut tensors
        )
    models = {"raw": model} if ema is None else {"raw": model, "ema": ema.module}
    mesh = make_mesh(config.parallel, device)
    for each in models.values():
        spread(each, mesh)
    optimizer, scheduler = optimizer_and_scheduler(model, config.optim, config.epochs, len(data.train))
    ranked = "ema" if ema is not None and config.ema.ranked else "raw"
    if config.runtime.compile:
        model.compile()
    random_seed(config.seed + TRAINING_SEED_OFFSET)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    checkpoints = RunCheckpoints(
        folder / "checkpoint",
        folder / "metrics.jsonl",
        State(model, optimizer, scaler, ema, device),
        warned,
        every_steps=config.runtime.checkpoint_every_steps,
        every_minutes=config.runtime.checkpoint_every_minutes,
        keep=config.runtime.keep_checkpoints,
        peak_memory_gib=memory.peak_gib,
    )
    progress = checkpoints.restore()
    if progress.restarts and rank() == 0:
        logger.warning("going on from step %d, restart %d", progress.step, progress.restarts)

    def evaluate_model(model: nn.Module) -> Evaluation:
        watched = partial(checkpoints.watched, progress=progress)
        return evaluate(model, data.test.epoch(0), device, autocast, test_loss(config), watched)

    evaluation = train(
        TrainingStep(
            model,
            list(moe_layers(model).values()),
            optimizer,
            task_loss(config),
            mix=mix(config, data.num_classes, len(data.train)),
            ema=ema,
            accumulation_steps=accumulation_steps,
            clip_grad=config.optim.clip_grad,
            autocast=autocast,
            scaler=scaler,
            device=device,
            network=network(model, mesh),
        ),
        data.train,
        scheduler,
        progress,
        epochs=config.epochs,
        evaluate=partial(evaluate_ranked, evaluate_model, models, ranked),
        eval_every=config.eval_every,
        log=log,
        log_every_steps=config.runtime.log_every_steps,
        checkpoints=checkpoints,
    )
    write_weights(folder, model)
    if ema is not None:
        write_weights(folder, ema.module, "ema")
    if rank() == 0:
        records.write_correct(folder, evaluation.correct)
        records.write_maps(folder, evaluation.maps)
    peak = memory.peak_gib()
    measured = {
        "images_per_second": progress.num_images / progress.seconds,
        "train_seconds": progress.seconds,
        "peak_memory_gib": None if peak is None else max(peak, progress.peak_memory_gib),
    }
    return {
        "metrics": evaluation.metrics,
        "evaluation": {"weights": ranked},
        "cost": asdict(costs) | measured,
        "placement_blocks": blocks,
        "ran": {
            "attention": attention,
            "backend": backend,
            "parallel": {axis: int(size) for axis, size in config.parallel.items()},
            "started": datetime.fromtimestamp(progress.started, timezone.utc).isoformat(),
            "restarts": progress.restarts,
        },
    }


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
