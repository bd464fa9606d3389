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
from timm.layers import to_2tuple
from timm.scheduler.scheduler import Scheduler
from timm.utils.random import random_seed
from torch import nn

from routerbench.build import build_backbone, configured_router
from routerbench.checks import check_one_of
from routerbench.config import check, is_dense
from routerbench.data.extra import ExtraImages, ExtraSet
from routerbench.data.loaders import Decoding, Loader, test_loader, train_loader
from routerbench.data.orders import ALONE, Share
from routerbench.data.sources import Dataset, Source, select
from routerbench.data.splits import Part, chosen, places_of
from routerbench.data.transforms import CentreCrop
from routerbench.moe.backends import BACKENDS, why_not
from routerbench.moe.experts import Experts, check_options
from routerbench.moe.router import Router
from routerbench.moe.surgery import PLACEMENTS, mlp_blocks, moe_layers, place, replace_mlps, take_shape
from routerbench.optim import make_optimizer, make_scheduler
from routerbench.weights import Weights, check_fit, read_weights


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
        check_options(config.expert_init, config.expert_mlp_ratio, config.expert_dropout)
    if isinstance(config.placement, str):  # of a dense run too, which does not look at it
        check_one_of("placement", config.placement, PLACEMENTS)
    device = choose_device(config.runtime.device)
    check_one_of("runtime.backend", config.runtime.backend, ("auto", *BACKENDS))
    _made("augment", config.augment)
    with torch.device("meta"):
        backbone = build_model(config, num_classes=2)
    _check_images_fit(backbone, config.model.name, config.data.image_size)
    optimizer_and_scheduler(backbone, config.optim, config.epochs, steps_per_epoch=2)
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


def build_model(config: DictConfig, num_classes: int, **further: Any) -> nn.Module:
    """The backbone, without MoE layers; raises ValueError for a model that is unknown or impossible."""
    of_model: Any = OmegaConf.to_container(config.model.arguments)  # timm takes lists, not nodes
    arguments = {**of_model, **further}
    if config.model.drop_path_rate:  # not every timm model has it
        arguments["drop_path_rate"] = config.model.drop_path_rate
    return build_backbone(config.model.name, num_classes, config.data.image_size, **arguments)


def load_weights(config: DictConfig, num_classes: int) -> Weights | None:
    """What the backbone is to start from, None for random weights.

    Raises ValueError for weights that are missing, damaged or those of another model.
    """
    source, name = config.model.weights, config.model.name
    if source is None:
        return None
    if source == "pretrained":
        random_seed(config.seed)  # of a classifier for other classes
        try:
            return build_model(config, num_classes, pretrained=True).state_dict()
        except Exception as error:  # of the network, the hub or timm
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
            raise ValueError(f"model.weights=pretrained fails for model.name={name}: {reason}") from error
    weights = read_weights(Path(source))
    with torch.device("meta"):
        model = build_model(config, num_classes)
    check_fit(model, weights, source=source, name=name)
    return weights


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
        expert_init=config.expert_init,
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
    return Data(
        train_loader(training, augment=augment, seed=config.seed, **of_batches),
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
    optimizer = make_optimizer(
        model,
        name=optim.name,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        expert_weight_decay=optim.expert_weight_decay,
    )
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
