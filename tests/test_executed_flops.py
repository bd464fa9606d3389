"""What is counted of realised routing is what the same forward pass executes."""

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from routerbench.build import build_backbone, router_names, sparsify
from routerbench.costs import ExecutedFlops, count_flops
from routerbench.modes import Mode, changeable, evaluated_in
from routerbench.moe.surgery import moe_layers

QUEUED = Mode(capacity_factor=0.5, batch_priority=True)
MODES: dict[str | int, tuple[Mode, ...]] = {
    "image": (Mode(), Mode(capacity_factor=0.3), QUEUED, Mode(top_k=2), Mode(dropless=True)),
    4: (Mode(), QUEUED),
}
BACKBONES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "pocket_vit": ({"depth": 2, "embed_dim": 16, "num_heads": 2}, [1]),
    "pocket_convnext": ({"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}, [1, 2]),
}
NUM_IMAGES = 4


def sparse(backbone: str, router: str, group: str | int) -> nn.Module:
    arguments, placement = BACKBONES[backbone]
    model = sparsify(build_backbone(backbone, 10, 32, **arguments), router, 4, placement, group).eval()
    for layer in moe_layers(model).values():
        layer.experts.act = nn.GELU()  # which the loop knows; none is a product
    return model


def cases() -> list[Any]:
    """Every router in a ViT, and three in a ConvNeXt; the others are slow."""
    names = [name for name in router_names() if name != "dense"]
    quick = {("pocket_vit", name) for name in names}
    quick |= {("pocket_convnext", name) for name in ("soft", "token_choice", "expert_choice")}
    return [
        pytest.param(*case, id="-".join(case), marks=() if case in quick else pytest.mark.slow)
        for case in product(BACKBONES, names)
    ]


@torch.no_grad()
@pytest.mark.parametrize(("backbone", "router"), cases())
def test_counted_flops_are_those_of_the_same_forward_pass(backbone: str, router: str) -> None:
    images = torch.randn(NUM_IMAGES, 3, 32, 32)
    for group, modes in MODES.items():
        if group != "image" and "group" not in changeable(sparse(backbone, router, "image")):
            continue  # it routes each image alone
        model = sparse(backbone, router, group)
        for mode in modes:
            if not mode.changes.keys() <= changeable(model):
                continue
            with evaluated_in(model, mode):
                assert counted(model, images) == pytest.approx(executed(model, images), rel=0.01), mode.name


def counted(model: nn.Module, images: torch.Tensor) -> float:
    costs = ExecutedFlops.of(model, (32, 32))
    model(images)
    taken = {
        name: float(layer.routing.plan.slots_taken.sum())
        for name, layer in moe_layers(model).items()
        if layer.routing is not None
    }
    return costs.fixed * len(images) + sum(costs.per_slot[name] * taken[name] for name in costs.per_slot)


def executed(model: nn.Module, images: torch.Tensor) -> int:
    model = copy.deepcopy(model)
    for layer in moe_layers(model).values():
        layer.backend = "loop"
    return count_flops(lambda: model(images))


@torch.no_grad()
def test_grouped_products_execute_the_same_where_every_seat_is_taken() -> None:
    model, images = sparse("pocket_vit", "expert_choice", "image"), torch.randn(NUM_IMAGES, 3, 32, 32)
    expected = counted(model, images)
    for layer in moe_layers(model).values():
        layer.backend = "grouped"
    assert count_flops(lambda: model(images)) == pytest.approx(expected, rel=0.01)


@torch.no_grad()
def test_a_dropped_token_costs_nothing() -> None:
    # 17 tokens, 4 experts, 1 slot each: at most 4 slots of 2 * 2 * 16 * 64 operations in the layer.
    model, images = sparse("pocket_vit", "token_choice", "image"), torch.randn(1, 3, 32, 32)
    costs = ExecutedFlops.of(model, (32, 32))
    assert set(costs.per_slot.values()) == {2 * 2 * 16 * 64}
    with evaluated_in(model, Mode(capacity_factor=0.01)):
        assert counted(model, images) <= costs.fixed + 4 * 2 * 2 * 16 * 64
    with evaluated_in(model, Mode(dropless=True)):
        assert counted(model, images) == costs.fixed + 17 * 2 * 2 * 16 * 64
