"""From a configuration to the parts of a run: backbone, MoE layers, batches, optimizer, device."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from timm.data.mixup import Mixup
from timm.layers import to_2tuple
from timm.scheduler.scheduler import Scheduler
from timm.utils.random import random_seed
from torch import nn

from routerbench.build import build_backbone, configured_router
from routerbench.checks import check_one_of
from routerbench.config import check, is_dense, mixes
from routerbench.data.extra import ExtraImages, ExtraSet
from routerbench.data.loaders import Decoding, Loader, test_loader, train_loader
from routerbench.data.orders import ALONE, Share
from routerbench.data.sources import Dataset, Source, select
from routerbench.data.splits import Part, chosen, places_of
from routerbench.data.transforms import CentreCrop
from routerbench.mixing import NeighbourMix
from routerbench.moe.backends import BACKENDS, why_not
from routerbench.moe.experts import Experts, check_options
from routerbench.moe.router import Router
from routerbench.moe.surgery import PLACEMENTS, mlp_blocks, moe_layers, place, replace_mlps, take_shape
from routerbench.optim import make_optimizer
from routerbench.parallel import why_not as why_not_parallel
from routerbench.ranks import num_ranks
from routerbench.schedules import make_scheduler
from routerbench.step import TaskLoss
from routerbench.task_loss import make_task_loss
from routerbench.weights import (
    RESIZE,
    Weights,
    check_fit,
    expert_key,
    read_weights,
    with_new_head,
    with_positions_of,
)

# Of an epoch, before the data say how many.
MANY_STEPS = 1_000_000


@dataclass(frozen=True)
class Data:
    """The batches of a run."""

    train: Loader
    test: Loader
    minival: Loader | None
    """What is held out of the training set, as in an evaluation."""
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many classes a model is to tell apart."""
        return len(self.class_names)

    @property
    def skipped(self) -> set[str]:
        """A line for each file that this process was to read and could not, with data.on_corrupt=skip."""
        held_out = self.minival.skipped if self.minival else set()
        return {*self.train.skipped, *self.test.skipped, *held_out}

    def close(self) -> None:
        """Stop the processes that decode images."""
        for loader in (self.train, self.test, self.minival):
            if loader is not None:
                loader.close()


def verify(config: DictConfig) -> None:
    """Refuse what cannot run, on a model without weights; raises ValueError in one line."""
    check(config)
    if config.expert_init is not None or not is_dense(config):  # a dense run may say null
        check_options(_expert_init(config), config.expert_mlp_ratio, config.expert_dropout)
    _check_start(config)
    if isinstance(config.placement, str):  # of a dense run too, which does not look at it
        check_one_of("placement", config.placement, PLACEMENTS)
    device = choose_device(config.runtime.device)
    check_one_of("runtime.backend", config.runtime.backend, ("auto", *BACKENDS))
    _made("augment", config.augment)
    task_loss(config)
    with torch.device("meta"):
        backbone = build_model(config, num_classes=2)
    problem = why_not_parallel(backbone)
    if problem and num_ranks() > 1:
        raise ValueError(
            f"model.name={config.model.name} cannot be trained by {num_ranks()} processes: {problem}"
        )
    _check_images_fit(backbone, config.model.name, config.data.image_size)
    optimizer_and_scheduler(backbone, config.optim, config.epochs, MANY_STEPS)
    if config.runtime.activation_checkpointing:
        checkpoint_activations(backbone, config.model.name)
    if not is_dense(config) and not mlp_blocks(backbone):
        raise ValueError(
            f"model.name={config.model.name} has no block with an MLP to replace: take a ViT, a ConvNeXt, "
            "a Swin ..., or router=dense"
        )
    with torch.device("meta"):
        put_moe_layers(backbone, config)
    for layer in moe_layers(backbone).values():
        problem = why_not(config.runtime.backend, layer.experts, device)
        if problem:
            raise ValueError(f"runtime.backend={config.runtime.backend} {problem}: take auto or bmm")


def _check_start(config: DictConfig) -> None:
    check_one_of("model.resize", config.model.resize, tuple(RESIZE))
    if config.model.new_head and config.model.weights is None:
        raise ValueError(
            "model.new_head=true means nothing without model.weights, for every head is new then"
        )
    if config.model.resize != "bicubic" and config.model.weights == "pretrained":
        raise ValueError(
            f"model.resize={config.model.resize} is not for model.weights=pretrained, which timm resizes: "
            "take bicubic"
        )


def build_model(config: DictConfig, num_classes: int, **further: Any) -> nn.Module:
    """The backbone, without MoE layers; raises ValueError for a model that is unknown or impossible."""
    of_model: Any = OmegaConf.to_container(config.model.arguments)  # timm takes lists, not nodes
    arguments = {**of_model, **further}
    if config.model.drop_path_rate:  # not every timm model has it
        arguments["drop_path_rate"] = config.model.drop_path_rate
    return build_backbone(config.model.name, num_classes, config.data.image_size, **arguments)


def load_weights(config: DictConfig, num_classes: int) -> Weights | None:
    """What the model is to start from, None for random weights.

    Those of an MoE run hold its experts and routers; others are of the backbone. Raises ValueError for
    weights that are missing, damaged or those of another model.
    """
    source, name = config.model.weights, config.model.name
    if source is None:
        return None
    weights = _pretrained(config, num_classes) if source == "pretrained" else read_weights(Path(source))
    of_moe = expert_key(weights) is not None
    _check_experts(config, expert_key(weights))
    if config.model.new_head:
        random_seed(config.seed)
        weights = with_new_head(build_model(config, num_classes), weights)
    with torch.device("meta"):
        model = build_model(config, num_classes)
    weights = with_positions_of(model, weights, config.model.resize)
    if of_moe and not is_dense(config):
        name = f"{name} with router={config.router.name}"
        with torch.device("meta"):
            put_moe_layers(model, config)
            take_shape(model, (config.data.image_size, config.data.image_size))
    check_fit(model, weights, source=source, name=name)
    return weights


def _pretrained(config: DictConfig, num_classes: int) -> Weights:
    random_seed(config.seed)  # of a classifier for other classes
    try:
        return build_model(config, num_classes, pretrained=True).state_dict()
    except Exception as error:  # of the network, the hub or timm
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
        raise ValueError(
            f"model.weights=pretrained fails for model.name={config.model.name}: {reason}"
        ) from error


def _check_experts(config: DictConfig, of_experts: str | None) -> None:
    """Refuse a start of experts that these weights do not give."""
    if is_dense(config):
        return
    start = f"expert_init={config.expert_init} with model.weights={config.model.weights}"
    if of_experts and config.expert_init is not None:
        raise ValueError(f"{start}, which has experts ({of_experts}): say expert_init=null, which takes them")
    if not of_experts and config.expert_init is None:
        raise ValueError(f"{start}, which has no experts: say expert_init=upcycle, or independent")


def start(config: DictConfig, num_classes: int, weights: Weights | None) -> tuple[nn.Module, list[int]]:
    """The configured model with these weights, and the indices of the blocks that have MoE layers."""
    model = build_model(config, num_classes)
    of_moe = weights is not None and expert_key(weights) is not None
    if weights is not None and not of_moe:
        model.load_state_dict(weights)
    blocks = put_moe_layers(model, config)
    if weights is not None and of_moe:
        model.load_state_dict(weights)
    return model, blocks


def put_moe_layers(model: nn.Module, config: DictConfig) -> list[int]:
    """Put the configured MoE layers in, and give back the indices of their blocks.

    Raises ValueError for a router or placement that is impossible in this model.
    """
    if is_dense(config):
        return []
    placement = config.placement if isinstance(config.placement, str) else list(config.placement)
    indices = place(list(mlp_blocks(model)), placement)
    make_experts = partial(
        Experts.from_dense,
        num_experts=config.num_experts,
        expert_init=_expert_init(config),
        expert_mlp_ratio=config.expert_mlp_ratio,
        expert_dropout=config.expert_dropout,
    )
    replace_mlps(
        model,
        indices,
        partial(_router, config.router, config.num_experts),
        make_experts,
        config.group,
        config.extra_skip,
    )
    return indices


def _expert_init(config: DictConfig) -> Any:
    """How experts start, which is no matter where those of an MoE run are to take their place."""
    taken = config.expert_init is None and config.model.weights is not None
    return "shared" if taken else config.expert_init


def _router(config: DictConfig, num_experts: int, width: int) -> Router:
    """The configured router, which is refused by the name of a setting as it is typed."""
    try:
        return configured_router(config, width, num_experts)
    except ValueError as error:
        named = str(error).partition("=")[0]
        raise ValueError(f"router.{error}" if named in config else str(error)) from error


def load_data(config: DictConfig, share: Share = ALONE) -> Data:
    """Read the data set and lay out its batches; raises ValueError for what is missing or does not fit."""
    augment = _made("augment", config.augment)
    source: Source = _made("data.source", config.data.source)
    training, held_out = _training_and_held_out(source.train, config.data)
    of_batches = _of_batches(config, share)
    train = train_loader(training, augment=augment, seed=config.seed, **of_batches)
    _scheduler(torch.optim.SGD([torch.zeros(1)], lr=1.0), config.optim, config.epochs, len(train))
    return Data(
        train,
        test_loader(source.test, **of_batches),
        test_loader(held_out, **of_batches) if held_out else None,
        source.class_names,
    )


def load_extra(config: DictConfig, class_names: tuple[str, ...], share: Share = ALONE) -> dict[str, ExtraSet]:
    """The further image sets that a model of these classes is to be evaluated on, by name.

    Raises ValueError where one is missing or a model of these classes cannot be asked about it.
    """
    extra = {}
    for name, node in config.eval.items():
        if str(node.get("_target_", "")).startswith("routerbench.data.extra."):
            images: ExtraImages = _made(f"eval.{name}", node)
            extra[name] = images.for_model(class_names, partial(test_loader, **_of_batches(config, share)))
    return extra


def _training_and_held_out(dataset: Dataset, data: DictConfig) -> tuple[Dataset, Dataset | None]:
    """The images to train on, and those of the minival, if there is to be one."""
    train = Part.parse("data.train_split", data.train_split)
    if train.name != "train" and "train_split" not in data.source:
        raise ValueError(f"{train.setting}: data={data.name} has train alone, or a part such as train[:99%]")
    minival = Part.parse("data.minival_split", data.minival_split) if data.minival_split else None
    num_images = len(dataset)
    places, held_out = places_of(train, minival, num_images)
    return (
        dataset if len(places) == num_images else select(dataset, chosen(places, num_images)),
        select(dataset, chosen(held_out, num_images)) if held_out else None,
    )


def _of_batches(config: DictConfig, share: Share) -> dict[str, Any]:
    """What the batches of all sets have in common."""
    data, runtime = config.data, config.runtime
    # A data set in memory has nothing to decode, and no settings for it.
    files = {"on_corrupt": "error", "crop_pct": 0.875, "interpolation": "bicubic", **data}
    check_one_of("data.on_corrupt", files["on_corrupt"], ("error", "skip"))
    decoding = Decoding(
        workers=num_workers() if runtime.workers is None else runtime.workers,
        cache_gib=runtime.decoded_cache_gib,
        skip_corrupt=files["on_corrupt"] == "skip",
        centre_crop=CentreCrop(files["crop_pct"], files["interpolation"]),
    )
    return {
        "batch_size": config.batch_size,
        "image_size": data.image_size,
        "mean": data.mean,
        "std": data.std,
        "decoding": decoding,
        "share": share,
    }


def num_workers() -> int:
    """One worker for each core that this process may use, shared out among the processes of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # torchrun says how many they are.
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def choose_device(name: str, setting: str = "runtime.device") -> torch.device:
    """The device of this name; `auto` is a GPU where there is one.

    Raises ValueError, which names the `setting`, where there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{setting}={name} is no device: cpu, cuda, cuda:1 ... or auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{setting}={name} is not here: this machine has {torch.cuda.device_count()} GPUs")
    try:
        torch.ones((), device=device).item()
    except (RuntimeError, AssertionError):
        raise ValueError(f"{setting}={name} cannot be used on this machine: take cpu or auto") from None
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


def optimizer_and_scheduler(
    model: nn.Module, optim: DictConfig, epochs: int, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, Scheduler]:
    """The configured optimizer of the model and its schedule over all steps."""
    arguments: Any = OmegaConf.to_container(optim.arguments)
    optimizer = make_optimizer(
        model,
        name=optim.name,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        expert_weight_decay=optim.expert_weight_decay,
        head_weight_decay=optim.head_weight_decay,
        layer_decay=optim.layer_decay,
        arguments=arguments,
    )
    return optimizer, _scheduler(optimizer, optim, epochs, steps_per_epoch)


def task_loss(config: DictConfig) -> TaskLoss:
    """The configured loss."""
    return make_task_loss(
        config.loss.name,
        label_smoothing=config.loss.label_smoothing,
        target_threshold=config.loss.target_threshold,
    )


def test_loss(config: DictConfig) -> TaskLoss:
    """The same of classes, as they are: with neither label smoothing nor a threshold."""
    return make_task_loss(config.loss.name, label_smoothing=0.0, target_threshold=None)


def mix(config: DictConfig, num_classes: int, steps_per_epoch: int) -> NeighbourMix | None:
    """How the images of a batch are mixed, if they are."""
    if not mixes(config):
        return None
    off = config.mix.off_epoch
    return NeighbourMix(
        Mixup(
            mixup_alpha=config.mix.mixup_alpha,
            cutmix_alpha=config.mix.cutmix_alpha,
            prob=config.mix.probability,
            switch_prob=config.mix.switch_probability,
            label_smoothing=0.0,  # the loss does that
            num_classes=num_classes,
        ),
        config.seed,
        None if off is None else off * steps_per_epoch,
    )


def checkpoint_activations(model: nn.Module, name: str) -> None:
    """Have the blocks computed again in the backward pass; raises ValueError where timm cannot."""
    described: Any = model
    try:
        described.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise ValueError(
            f"runtime.activation_checkpointing=true is not for model.name={name}: say false"
        ) from error


def _scheduler(
    optimizer: torch.optim.Optimizer, optim: DictConfig, epochs: int, steps_per_epoch: int
) -> Scheduler:
    arguments: Any = OmegaConf.to_container(optim.schedule_arguments)
    return make_scheduler(
        optimizer,
        schedule=optim.schedule,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=optim.warmup_epochs,
        warmup_steps=optim.warmup_steps,
        warmup_lr=optim.warmup_lr,
        min_lr=optim.min_lr,
        arguments=arguments,
    )


def _check_images_fit(model: nn.Module, name: str, image_size: int) -> None:
    # A patch embedding leaves out, without a word, what is beyond its last whole patch.
    embedding = getattr(model, "patch_embed", None)
    patch: Any = to_2tuple(getattr(embedding, "patch_size", 1))
    stride: Any = getattr(getattr(embedding, "proj", None), "stride", patch)
    side = min(patch[0], stride[0])  # PVTv2's patches overlap
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
