"""Which backend computes the MoE layers of a model fastest on this device: by measurement, kept in a file."""

import copy
import json
import os
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routerbench.moe.backends import check_backend, low_precision_on_cpu, why_not
from routerbench.moe.layer import MoE
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.records import write_text, writing
from routerbench.timing import Contestant, clock, rounds

# The one-hot definition is never the fastest, and its memory may be more than there is.
CANDIDATES = ("bmm", "loop", "grouped")
ROUNDS = 3
MOST_TOKENS = 4096  # of a measurement, which may not take long beside the run


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
    backend = _named(file)
    if backend is None:
        milliseconds = backend_times(model, layers, image_size, batch_size, autocast)
        backend = min(milliseconds, key=lambda name: milliseconds[name])
        _write(file, {"backend": backend, "milliseconds": milliseconds})
        backend = _named(file)  # another run may have been the first
        assert backend is not None
    return use_backend(model, backend)


def use_backend(model: nn.Module, backend: str) -> str | None:
    """Give all MoE layers this backend, and give back its name; None for a model without MoE layers."""
    layers = moe_layers(model).values()
    for layer in layers:
        check_backend(backend, layer.experts, layer.experts.w1.device)
        layer.backend = backend
    return backend if layers else None


def _named(file: Path) -> str | None:
    """The backend of the file; None where there is none, or none that could have been measured."""
    try:
        backend = json.loads(file.read_text())["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return backend if backend in CANDIDATES else None


def _write(file: Path, choice: dict[str, Any]) -> None:
    """Write the choice, unless another process has written one; raises UnwritableError."""
    own = file.with_suffix(f".{os.getpid()}")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(own, json.dumps(choice, indent=1) + "\n")
        if _named(file) is None:  # damaged, if it is there
            file.unlink(missing_ok=True)
        try:
            os.link(own, file)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            own.replace(file)
        own.unlink(missing_ok=True)


def backend_times(
    model: nn.Module,
    layers: Sequence[MoE],
    image_size: tuple[int, int],
    batch_size: int,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Milliseconds of forward and backward of all layers by backend; low precision on a CPU has bmm alone."""
    shapes = _input_shapes(model, layers, image_size)
    device = layers[0].experts.w1.device
    with autocast:
        candidates = ("bmm",) if low_precision_on_cpu(device) else CANDIDATES
    usable = [
        name for name in candidates if not any(why_not(name, layer.experts, device) for layer in layers)
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
