"""Layers of other packages, timed beside ours: what `--peer module:callable` names, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from routerbench.bench.cases import CAPACITY_FACTOR, TOP_K, Shape


@dataclass(frozen=True)
class Peer:
    """A function of width, hidden, num_experts, top_k and capacity_factor that makes a layer."""

    name: str
    make: Callable[..., object]

    def layer(self, shape: Shape, device: torch.device) -> nn.Module:
        """Its layer for this shape; raises ValueError where it cannot be made."""
        try:
            layer = self.make(
                width=shape.width,
                hidden=shape.hidden,
                num_experts=shape.num_experts,
                top_k=TOP_K,
                capacity_factor=CAPACITY_FACTOR,
            )
        except Exception as error:  # whatever its package raises
            raise ValueError(f"peer={self.name} cannot be made for {shape}: {reason(error)}") from error
        if not isinstance(layer, nn.Module):
            raise ValueError(f"peer={self.name} gives a {type(layer).__name__}: it must give an nn.Module")
        return layer.to(device)

    def check(self, shape: Shape, device: torch.device, autocast: torch.autocast) -> None:
        """Raise ValueError unless its layer takes an image's tokens of this shape and gives the like."""
        layer = self.layer(shape, device)
        tokens = torch.zeros(1, shape.tokens // shape.num_images, shape.width, device=device)
        tokens.requires_grad_()
        try:
            with autocast:
                output = output_of(layer(tokens))
        except Exception as error:  # whatever its package raises
            raise ValueError(f"peer={self.name} fails for {shape}: {reason(error)}") from error
        if not isinstance(output, Tensor) or output.shape != tokens.shape:
            found = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(f"peer={self.name} gives {found} for tokens {tuple(tokens.shape)}")
        if not output.requires_grad:
            raise ValueError(f"peer={self.name} gives an output without gradient: it has no backward pass")


def read_peer(name: str) -> Peer:
    """Import what `module:callable` names; raises ValueError where that cannot be done."""
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise ValueError(f"peer={name} is not of the form module:callable")
    try:
        found: object = import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever its package raises
        raise ValueError(f"peer={name} cannot be imported: {reason(error)}") from error
    if not callable(found):
        raise ValueError(f"peer={name} is a {type(found).__name__}: it must be callable")
    return Peer(name, found)


def output_of(given: object) -> object:
    """The tokens of a layer's output, which may come with losses and more behind them."""
    return given[0] if isinstance(given, tuple | list) else given


def reason(error: Exception) -> str:
    """An error in one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
