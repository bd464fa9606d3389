"""The state of a run while it trains: all that a checkpoint must keep beside its progress."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn


@dataclass(frozen=True)
class State:
    """What changes while a run trains, beside its progress."""

    model: nn.Module
    """As it was built: neither compiled nor wrapped."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    device: torch.device

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name; weights are the model's own, not copies."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema/{name}": value for name, value in self.ema.module.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{key}"] = as_tensor(value)
        for index, group in enumerate(self.optimizer.param_groups):
            tensors |= {f"groups/{index}/{key}": value for key, value in _countable(group).items()}
        tensors |= {f"scaler/{key}": value for key, value in _countable(self.scaler.state_dict()).items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def room_for(self, sizes: dict[str, tuple[torch.Size, torch.dtype]]) -> dict[str, Tensor]:
        """Tensors of the names and sizes of a checkpoint, to read it into: as `tensors`, and as many.

        Raises ValueError for a checkpoint of another model.
        """
        room = self.tensors()
        parameters = dict(self.model.named_parameters())
        for name, (size, dtype) in sizes.items():
            kind, _, key = name.partition("/")
            if kind in ("optimizer", "groups") and name not in room:  # which come with the first step
                parameter = parameters.get(key.rpartition("/")[0])
                if parameter is not None and parameter.shape == size:  # and is sharded alike
                    room[name] = torch.zeros_like(parameter, dtype=dtype)
                else:
                    room[name] = torch.zeros(size, dtype=dtype)
        # Random numbers of a GPU mean nothing on a CPU.
        needed = {name for name in room if not name.startswith("random/")}
        there = {name for name in sizes if not name.startswith("random/")}
        for name in sorted(needed ^ there):
            where = "the model has not" if name in there else "the checkpoint has not"
            raise ValueError(f"is of another model: {where} {name}")
        for name, tensor in room.items():
            if name in sizes and tensor.shape != sizes[name][0]:
                has, needs = tuple(sizes[name][0]), tuple(tensor.shape)
                raise ValueError(f"is of another model: {name} is of shape {has}, not {needs}")
        return {name: tensor for name, tensor in room.items() if name in sizes}

    def take(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what was read."""
        self.model.load_state_dict(_below("model/", tensors))
        if self.ema is not None:
            self.ema.module.load_state_dict(_below("ema/", tensors))
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        packed = self.optimizer.state_dict()
        for index, group in enumerate(packed["param_groups"]):
            group |= _as_kept(_below(f"groups/{index}/", tensors))
        every = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        kept = [_as_kept(_below(f"optimizer/{names[parameter]}/", tensors)) for parameter in every]
        packed["state"] = {index: of_parameter for index, of_parameter in enumerate(kept) if of_parameter}
        self.optimizer.load_state_dict(packed)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(self.scaler.state_dict() | _as_kept(_below("scaler/", tensors)))
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"], self.device)


def as_tensor(value: Tensor | int | float) -> Tensor:
    """A number as a tensor that holds it exactly."""
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)


def _countable(entries: dict[str, Any]) -> dict[str, Tensor]:
    """The numbers and tensors among settings and counts; what is neither never changes."""
    return {key: as_tensor(value) for key, value in entries.items() if type(value) in (int, float, Tensor)}


def _as_kept(entries: dict[str, Tensor]) -> dict[str, Tensor | int | float]:
    """The same with numbers again where `as_tensor` was given them; torch's own counts are in float32."""
    of_numbers = (torch.float64, torch.int64)
    return {
        key: value.item() if value.dim() == 0 and value.dtype in of_numbers else value
        for key, value in entries.items()
    }


def _below(prefix: str, entries: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
