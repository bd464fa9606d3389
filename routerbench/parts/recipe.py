"""From a configuration to how it is trained: optimizer, schedule, loss, mixing."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from timm.data.mixup import Mixup
from timm.scheduler.scheduler import Scheduler
from torch import nn

from routerbench.config import mixes
from routerbench.mixing import NeighbourMix
from routerbench.optim import make_optimizer
from routerbench.schedules import make_scheduler
from routerbench.step import TaskLoss
from routerbench.task_loss import make_task_loss


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


def check_schedule(config: DictConfig, steps_per_epoch: int) -> None:
    """Raise ValueError for a schedule that is impossible in so many steps."""
    _scheduler(torch.optim.SGD([torch.zeros(1)], lr=1.0), config.optim, config.epochs, steps_per_epoch)


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
