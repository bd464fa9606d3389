"""Which backend computes the MoE layers of a model fastest on this device: by measurement, kept in a file."""

import copy
import json
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from routerbench.moe.backends import check_backend, why_not
from routerbench.moe.layer import MoE
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.records import write_text
from routerbench.timing import Contestant, clock, rounds

# The one-hot definition is never the fastest, and its memory may be more than there is.
CANDIDATES = ("bmm", "loop", "grouped")
ROUNDS = 3
MOST_TOKENS = 4096  # of a measurement: larger batches would choose the same


def autotune(
    model: nn.Module, image_size: tuple[int, int], batch_size: int, autocast: torch.autocast, file: Path
) -> str | None:
    """Give all MoE layers the backend that `file` names, or else the fastest, which is written there.

    So runs that share the file share the backend, and with it the last bits of their numbers. Gives back its
    name; None for a model without MoE layers.
    """
    layers = list(moe_layers(model).values())
    if not layers:
        return None
    if not file.exists():
        milliseconds = backend_times(model, layers, image_size, batch_size, autocast)
        if not file.exists():  # another run may have been as far
            fastest = min(milliseconds, key=lambda name: milliseconds[name])
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps({"backend": fastest, "milliseconds": milliseconds}, indent=1) + "\n")
    return use_backend(model, json.loads(file.read_text())["backend"])


def use_backend(model: nn.Module, backend: str) -> str | None:
    """Give all MoE layers this backend, and give back its name; None for a model without MoE layers."""
    layers = moe_layers(model).values()
    for layer in layers:
        check_backend(backend, layer.experts, layer.experts.w1.device)
        layer.backend = backend
    return backend if layers else None


def backend_times(
    model: nn.Module,
    layers: Sequence[MoE],
    image_size: tuple[int, int],
    batch_size: int,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Milliseconds of forward and backward of all layers, for every backend that can compute them all."""
    shapes = _input_shapes(model, layers, image_size)
    device = next(model.parameters()).device
    usable = [
        name for name in CANDIDATES if not any(why_not(name, layer.experts, device) for layer in layers)
    ]
    of_shape = {  # layers alike are measured once
        shape: _milliseconds(layer, usable, shape, batch_size, autocast)
        for shape, layer in zip(shapes, layers, strict=True)
    }
    return {
        name: sum(of_shape[shape][name] for shape in shapes)
        for name in usable
        if all(name in times for times in of_shape.values())
    }


def _milliseconds(
    layer: MoE, backends: Sequence[str], shape: torch.Size, batch_size: int, autocast: torch.autocast
) -> dict[str, float]:
    """Of forward and backward over random tokens, where `shape` is that of one image's."""
    layer = copy.deepcopy(layer).train()
    device = layer.experts.w1.device
    num_images = max(min(batch_size, MOST_TOKENS // shape[:-1].numel()), layer.images_per_group)
    x = torch.randn(num_images * shape[0], *shape[1:], device=device, requires_grad=True)
    upstream = torch.randn_like(x)

    def step(backend: str) -> None:
        layer.backend = backend
        with autocast:
            y = layer(x)
        y.backward(upstream.to(y.dtype))

    contestants = []
    for backend in backends:
        try:
            step(backend)
        except RuntimeError:
            if backend != "grouped":
                raise
            continue  # torch has grouped products not for every device and precision
        contestants.append(Contestant(backend, partial(step, backend), layer.zero_grad))
    _, seconds_of = clock(device, torch.get_num_threads())
    taken = rounds(contestants, seconds_of, ROUNDS)
    return {backend: 1e3 * statistics.median(seconds) for backend, seconds in taken.items()}


def _input_shapes(model: nn.Module, layers: Sequence[MoE], image_size: tuple[int, int]) -> list[torch.Size]:
    """What each layer is given for one image."""
    shapes: dict[nn.Module, torch.Size] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[layer] = inputs[0].shape

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        take_shape(model, image_size)
    finally:
        for hook in hooks:
            hook.remove()
    return [shapes[layer] for layer in layers]
