"""Whole models to be timed: a training step of the dense twin and of those with MoE layers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from routerbench.attention import choose_attention
from routerbench.bench.cases import CAPACITY_FACTOR, ModelCase
from routerbench.bench.layers import DENSE, DTYPES, Makers, autocast_to
from routerbench.build import build_backbone, sparsify
from routerbench.moe.backends import default_backend
from routerbench.moe.surgery import moe_layers
from routerbench.optim import make_optimizer
from routerbench.step import TrainingStep
from routerbench.timing import Contestant

NUM_CLASSES = 1000


def model_makers(case: ModelCase, backends: Sequence[str] | None, device: torch.device) -> Makers:
    """Contestants of a model case, which all get the same images; `backends` None: the layer's own choice."""
    size = case.image_size
    images = torch.randn(case.batch_size, 3, size, size, device=device)
    labels = torch.arange(case.batch_size, device=device) % NUM_CLASSES

    def dense() -> Contestant:
        return _training(DENSE, backbone(case), case, images, labels)

    def sparse(name: str, placement: str, backend: str | None) -> Contestant:
        return _training(name, sparse_model(case, placement, backend), case, images, labels)

    makers: Makers = {DENSE: dense}
    for placement in case.placements:
        for backend in backends or [None]:
            name = placement if backend is None else f"{placement} {backend}"
            makers[name] = lambda name=name, placement=placement, backend=backend: sparse(
                name, placement, backend
            )
    return makers


def backbone(case: ModelCase) -> nn.Module:
    """The dense twin; raises ValueError for a model that is unknown or impossible."""
    return build_backbone(case.model, NUM_CLASSES, case.image_size)


def sparse_model(case: ModelCase, placement: str, backend: str | None) -> nn.Module:
    """The model with MoE layers; raises ValueError for a placement or router that it cannot have."""
    group = case.batch_size if case.group == "batch" else "image"
    model = sparsify(
        backbone(case), case.router, case.num_experts, placement, group, capacity_factor=CAPACITY_FACTOR
    )
    for layer in moe_layers(model).values():
        layer.backend = layer.backend if backend is None else backend
    return model


def _training(
    name: str, model: nn.Module, case: ModelCase, images: torch.Tensor, labels: torch.Tensor
) -> Contestant:
    """A whole step of training: forward, backward and AdamW."""
    device = images.device
    model.to(device).train()
    choose_attention(model, device, DTYPES[case.precision])  # as training does
    optimizer = make_optimizer(model, name="adamw", lr=1e-4, weight_decay=0.05)
    autocast = autocast_to(case.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=case.precision == "fp16")
    layers = list(moe_layers(model).values())
    step = TrainingStep(
        model,
        layers,
        optimizer,
        F.cross_entropy,
        mix=None,
        ema=None,
        accumulation_steps=1,
        clip_grad=None,
        autocast=autocast,
        scaler=scaler,
        device=device,
    )

    def reset() -> None:
        optimizer.zero_grad()
        for layer in layers:
            layer.routing = None  # it holds the step's graph

    with autocast:
        backend = layers[0].backend or default_backend(layers[0].experts, device) if layers else None
    return Contestant(name, lambda: step(images, labels, 0), reset, backend)
