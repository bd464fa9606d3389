"""The state of a run: kept and taken up again, it goes on to the same bits."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn

from routerbench.build import build_backbone, sparsify
from routerbench.optim import make_optimizer
from routerbench.state import State

CPU = torch.device("cpu")


def vit(router: str = "token_choice") -> nn.Module:
    model = build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2, drop_path_rate=0.3)
    return sparsify(model, router, 4, [1]).train()


def state_of(model: nn.Module, name: str, **changes: Any) -> State:
    optimizer = make_optimizer(model, name=name, lr=0.01, weight_decay=0.05)
    settings = {"scaler": torch.amp.GradScaler("cpu", enabled=False), "ema": None, "device": CPU, **changes}
    return State(model, optimizer, **settings)


def train(state: State, steps: int) -> None:
    """Steps on batches that the state's own random numbers draw."""
    for _ in range(steps):
        state.optimizer.zero_grad()
        loss = F.cross_entropy(state.model(torch.randn(4, 3, 32, 32)), torch.arange(4))
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.ema is not None:
            state.ema.update(state.model)


def kept(state: State) -> dict[str, torch.Tensor]:
    """A copy of the state, as a checkpoint would give it back."""
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def taken(state: State, tensors: dict[str, torch.Tensor]) -> None:
    """Take up a state as a checkpoint does: read into room of its own."""
    room = state.room_for({name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()})
    assert room.keys() == tensors.keys()
    with torch.no_grad():
        for name, tensor in tensors.items():
            room[name].copy_(tensor)
    state.take(room)


@pytest.mark.parametrize(
    "name",
    [
        "adamw",
        "sgd",
        "momentum",
        "lamb",
        "lion",
        "adafactor",
        "nadamw",
        "radam",
        "rmsproptf",
        "muon",
        "adopt",
        "adamp",
        "cadamw",
        "laprop",
    ],
)
def test_every_optimizer_goes_on_to_the_same_bits(name: str) -> None:
    state = state_of(vit(), name)
    train(state, 3)
    tensors = kept(state)
    train(state, 3)
    torch.manual_seed(5)
    other = state_of(vit(), name)
    taken(other, tensors)
    train(other, 3)
    torch.testing.assert_close(kept(other), kept(state), rtol=0, atol=0)


def test_the_scale_of_fp16_goes_on() -> None:
    def scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)

    state = state_of(vit(), "adamw", scaler=scaler())
    train(state, 3)
    assert state.scaler.get_scale() == 128.0
    other = state_of(vit(), "adamw", scaler=scaler())
    taken(other, kept(state))
    assert other.scaler.state_dict() == state.scaler.state_dict()
    train(other, 1)
    assert other.scaler.get_scale() == 256.0


@pytest.mark.parametrize("router", ["sigmoid_bias", "random", "soft", "sinkhorn_token_choice"])
def test_averages_biases_and_draws_of_routers_go_on(router: str) -> None:
    def with_average() -> State:
        model = vit(router)
        with torch.no_grad():
            model(torch.zeros(1, 3, 32, 32))  # gives every parameter its shape
        return state_of(model, "adamw", ema=ModelEmaV3(model, decay=0.9))

    state = with_average()
    train(state, 3)
    tensors = kept(state)
    assert any(name.startswith("ema/blocks.1.mlp.experts") for name in tensors)
    train(state, 2)
    other = with_average()
    taken(other, tensors)
    train(other, 2)
    torch.testing.assert_close(kept(other), kept(state), rtol=0, atol=0)


def test_what_is_of_another_model_is_refused() -> None:
    state = state_of(vit(), "adamw")
    train(state, 1)
    sizes = {name: (tensor.shape, tensor.dtype) for name, tensor in state.tensors().items()}
    for change, text in (
        ({"model/further": (torch.Size([2]), torch.float32)}, "the model has not model/further"),
        (
            {"model/norm.bias": (torch.Size([2]), torch.float32)},
            "model/norm.bias is of shape (2,), not (16,)",
        ),
    ):
        with pytest.raises(ValueError, match=f"^is of another model: {re.escape(text)}$"):
            state_of(vit(), "adamw").room_for(sizes | change)
    del sizes["model/norm.bias"]
    with pytest.raises(ValueError, match=r"^is of another model: the checkpoint has not model/norm\.bias$"):
        state_of(vit(), "adamw").room_for(sizes)
