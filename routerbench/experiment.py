"""One configuration -> one record. The only reader of the configuration; behind it there are arguments."""

import logging
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from timm.layers import to_2tuple
from timm.scheduler.scheduler import Scheduler
from timm.utils.random import random_seed
from torch import nn

from routerbench import records
from routerbench.build import build_backbone, configured_router
from routerbench.config import check, group_id, identity, is_dense, run_id
from routerbench.costs import peak_memory_gib, reset_peak_memory, static_costs
from routerbench.data.image_files import CorruptImageError
from routerbench.data.loaders import Loader, test_loader, train_loader
from routerbench.data.sources import Source
from routerbench.evaluate import evaluate
from routerbench.moe.surgery import mlp_blocks, place, replace_mlps, take_shape
from routerbench.optim import make_optimizer, make_scheduler
from routerbench.progress import display
from routerbench.provenance import provenance
from routerbench.tracking import mirror
from routerbench.train import DivergedError, Row, train

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The training's random numbers must not hang on how many a router's initialisation drew.
TRAINING_SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class Data:
    """The batches of a run."""

    train: Loader
    test: Loader
    num_classes: int


def verify(config: DictConfig) -> None:
    """Refuse what cannot run, on a model without weights; raises ValueError in one line."""
    check(config)
    choose_device(config.runtime.device)
    _made("augment", config.augment)
    with torch.device("meta"):
        backbone = build_model(config, num_classes=2)
    _check_images_fit(backbone, config.model.name, config.data.image_size)
    _optimizer_and_scheduler(backbone, config.optim, config.epochs, steps_per_epoch=2)
    if not is_dense(config) and not mlp_blocks(backbone):
        raise ValueError(
            f"model.name={config.model.name} has no block with an MLP to replace: take a ViT, a ConvNeXt, "
            "a Swin ..., or router=dense"
        )
    with torch.device("meta"):
        put_moe_layers(backbone, config)


def build_model(config: DictConfig, num_classes: int) -> nn.Module:
    """The backbone, without MoE layers; raises ValueError for a model that is unknown or impossible."""
    arguments = dict(config.model.arguments)
    if config.model.drop_path_rate:  # not every timm model has it
        arguments["drop_path_rate"] = config.model.drop_path_rate
    return build_backbone(config.model.name, num_classes, config.data.image_size, **arguments)


def put_moe_layers(model: nn.Module, config: DictConfig) -> list[int]:
    """Put the configured MoE layers in, and give back the indices of their blocks.

    Raises ValueError for a router or placement that is impossible in this model.
    """
    if is_dense(config):
        return []
    placement = config.placement if isinstance(config.placement, str) else list(config.placement)
    indices = place(list(mlp_blocks(model)), placement)
    make_router = partial(configured_router, config.router, num_experts=config.num_experts)
    replace_mlps(model, indices, lambda width: make_router(width=width), config.num_experts, config.group)
    return indices


def load_data(config: DictConfig) -> Data:
    """Read the data set and lay out its batches; raises ValueError for what is missing or does not fit."""
    source: Source = _made("data.source", config.data.source)
    shared = {
        "batch_size": config.batch_size,
        "image_size": config.data.image_size,
        "mean": config.data.mean,
        "std": config.data.std,
        "workers": config.runtime.workers,
    }
    augment = _made("augment", config.augment)
    training = train_loader(source.train, augment=augment, seed=config.seed, **shared)
    return Data(training, test_loader(source.test, **shared), len(source.class_names))


def run(config: DictConfig, *, command: str, console: Console, title: str) -> str:
    """Train, evaluate and record one configuration, unless that is done; gives back what became of it.

    That is the record's status, or `running` where another process is at it. Raises ValueError for data
    that cannot be used, before anything is written, and CorruptImageError in the midst of a run.
    """
    settings = identity(config)
    folder = records.run_folder(Path(config.runtime.results), run_id(settings))
    earlier = _earlier(folder, config.runtime.retry)
    if earlier is None:
        data = load_data(config)
        try:
            with records.claim(folder):
                earlier = _earlier(folder, config.runtime.retry)
                if earlier is None:
                    show = partial(display, console, title, config.epochs)
                    return _run_and_record(config, settings, data, folder, command, show)
        except records.RunningError as running:
            console.print(f"{title}  is being trained by {running}", markup=False, highlight=False)
            return "running"
    console.print(f"{title}  {earlier} before", markup=False, highlight=False)
    return earlier


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` is a GPU where there is one. Raises ValueError where there is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"runtime.device={name} is no device: cpu, cuda, cuda:1 ... or auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"runtime.device={name} is not here: this machine has {torch.cuda.device_count()} GPUs"
        )
    try:
        torch.ones((), device=device).item()
    except (RuntimeError, AssertionError):
        raise ValueError(f"runtime.device={name} cannot be used on this machine: take cpu or auto") from None
    return device


def _made(name: str, config: DictConfig) -> Any:
    """What a node with a `_target_` describes; raises ValueError for settings that it does not take."""
    try:
        return instantiate(config)
    except InstantiationException as error:
        # Hydra wraps what the user should read.
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError):
            raise ValueError(f"{name} cannot be built: {error.__cause__}") from error
        raise


def _optimizer_and_scheduler(
    model: nn.Module, optim: DictConfig, epochs: int, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, Scheduler]:
    optimizer = make_optimizer(model, name=optim.name, lr=optim.lr, weight_decay=optim.weight_decay)
    scheduler = make_scheduler(
        optimizer,
        schedule=optim.schedule,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=optim.warmup_epochs,
        warmup_lr=optim.warmup_lr,
        min_lr=optim.min_lr,
    )
    return optimizer, scheduler


def _check_images_fit(model: nn.Module, name: str, image_size: int) -> None:
    # A patch embedding leaves out, without a word, what is beyond its last whole patch.
    patch: Any = to_2tuple(getattr(getattr(model, "patch_embed", None), "patch_size", 1))
    side = patch[0]
    if image_size % side:
        raise ValueError(
            f"model.name={name} cannot take data.image_size={image_size}: its patches are {side} x {side}, "
            "so give a multiple of that"
        )
    try:
        take_shape(model, (image_size, image_size))
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"model.name={name} cannot take data.image_size={image_size}: {reason}") from error


def _earlier(folder: Path, retry: bool) -> str | None:
    """What became of the run before, if that is to stand."""
    record = records.read_record(folder)
    if record is None or (retry and record["status"] != "done"):
        return None
    return record["status"]


def _run_and_record(
    config: DictConfig,
    settings: dict[str, Any],
    data: Data,
    folder: Path,
    command: str,
    show: Callable[[int], AbstractContextManager[Callable[[Row], None]]],
) -> str:
    started = datetime.now(timezone.utc)
    name, rows = run_id(settings), folder / "metrics.jsonl"
    rows.unlink(missing_ok=True)
    records.write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    device = choose_device(config.runtime.device)
    with (
        mirror(folder, name, group_id(settings), settings, config.runtime.wandb) as log_to_wandb,
        show(config.epochs * len(data.train)) as log_to_screen,
    ):

        def log(row: Row) -> None:
            records.append_row(rows, row)
            log_to_wandb(row)
            log_to_screen(row)

        outcome = _outcome(partial(_measure, config, data, device, folder, log))
    times = {"started": started.isoformat(), "finished": datetime.now(timezone.utc).isoformat()}
    origin = provenance(device, command) | times
    records.write_record(folder, {"run_id": name, **outcome, "config": settings, "provenance": origin})
    return outcome["status"]


def _outcome(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run came to: an error is an outcome too, which the board counts."""
    nothing = {"metrics": {}, "cost": {}, "placement_blocks": []}
    try:
        return {"status": "done", **measure(), "error": None}
    except CorruptImageError:  # the input is at fault, not the configuration
        raise
    except DivergedError as error:
        return {"status": "diverged", **nothing, "error": str(error)}
    except torch.OutOfMemoryError as error:
        return {"status": "oom", **nothing, "error": str(error)}
    except Exception as error:
        logger.error("the run failed: %s: %s", type(error).__name__, error)
        return {"status": "failed", **nothing, "error": traceback.format_exc()}


def _measure(
    config: DictConfig, data: Data, device: torch.device, folder: Path, log: Callable[[Row], None]
) -> dict[str, Any]:
    """Build, train and evaluate; the metrics and costs of the record."""
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    reset_peak_memory(device)
    random_seed(config.seed)
    model = build_model(config, data.num_classes)
    blocks = put_moe_layers(model, config)
    model.to(device)
    costs = static_costs(model, (config.data.image_size, config.data.image_size))
    optimizer, scheduler = _optimizer_and_scheduler(model, config.optim, config.epochs, len(data.train))
    autocast = torch.autocast(device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32")
    random_seed(config.seed + TRAINING_SEED_OFFSET)
    trained = train(
        model,
        data.train,
        optimizer,
        scheduler,
        epochs=config.epochs,
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
    measured = {
        "images_per_second": trained.num_images / trained.seconds,
        "train_seconds": trained.seconds,
        "peak_memory_gib": peak_memory_gib(device),
    }
    return {
        "metrics": trained.evaluation.metrics,
        "cost": asdict(costs) | measured,
        "placement_blocks": blocks,
    }
