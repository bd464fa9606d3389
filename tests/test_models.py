"""Backbones of our own: sizes by hand, and timm's ways with them."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from routerbench.build import build_backbone
from routerbench.models import IsotropicConvNeXt
from routerbench.moe.surgery import mlp_blocks

NAMES = ("pocket_vit", "pocket_convnext", "pocket_convnext_iso")


def test_timm_knows_them() -> None:
    known = timm.list_models()
    assert {*NAMES, "vit_s32", "convnext_iso_small", "convnext_iso_base"} <= set(known)


@pytest.mark.parametrize("name", NAMES)
def test_pocket_models_classify_small_images(name: str) -> None:
    model = build_backbone(name, num_classes=7, image_size=32)
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert len(mlp_blocks(model)) == 6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", [{}, {"drop_path_rate": 0.5}])
def test_pocket_models_take_drop_path(name: str, arguments: dict[str, Any]) -> None:
    model = build_backbone(name, num_classes=7, image_size=32, **arguments)
    for block in mlp_blocks(model).values():
        nn.init.normal_(block.mlp.fc2.weight, std=1.0)  # pyright: ignore
    images = torch.randn(8, 3, 32, 32)
    assert torch.equal(model(images), model(images)) is (arguments == {})
    assert torch.equal(model.eval()(images), model(images))


def isotropic(dim: int) -> int:
    """Patches of 16, 18 blocks (depthwise 7 x 7, norm, MLP of ratio 4), norm, and a head of 1,000 classes."""
    patches = 16 * 16 * 3 * dim + dim
    block = (7 * 7 * dim + dim) + 2 * dim + (4 * dim**2 + 4 * dim) + (4 * dim**2 + dim)
    return patches + 18 * block + 2 * dim + 1000 * dim + 1000


def vit(dim: int) -> int:
    """Patches of 32, class token, 50 positions, 8 blocks (norms, attention, MLP of ratio 4), norm, head."""
    tokens = (32 * 32 * 3 * dim + dim) + dim + 50 * dim
    attention = (3 * dim**2 + 3 * dim) + (dim**2 + dim)
    mlp = (4 * dim**2 + 4 * dim) + (4 * dim**2 + dim)
    return tokens + 8 * (4 * dim + attention + mlp) + 2 * dim + 1000 * dim + 1000


@pytest.mark.parametrize(
    ("name", "number", "millions"),
    [
        ("convnext_iso_small", isotropic(384), 22.3),
        ("convnext_iso_base", isotropic(768), 87.1),
        ("vit_s32", vit(512), 27.3),
    ],
)
def test_numbers_of_parameters(name: str, number: int, millions: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == number
    assert round(number / 1e6, 1) == millions


def test_the_isotropic_convnext_keeps_width_and_resolution() -> None:
    model = IsotropicConvNeXt(patch_size=4, depth=3, dim=8, num_classes=5)
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda *args: shapes.append(args[-1].shape))
    assert model(torch.randn(2, 3, 16, 24)).shape == (2, 5)
    assert shapes == [(2, 8, 4, 6)] * 3
    assert list(mlp_blocks(model)) == ["blocks.0", "blocks.1", "blocks.2"]


def test_drop_path_grows_with_the_depth() -> None:
    model = build_backbone("pocket_convnext_iso", num_classes=5, image_size=32, drop_path_rate=0.5)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in mlp_blocks(model).values()]  # pyright: ignore
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    single = IsotropicConvNeXt(patch_size=4, depth=1, dim=8, num_classes=5, drop_path_rate=0.5)
    assert single(torch.randn(1, 3, 8, 8)).shape == (1, 5)


def test_vit_s32_is_that_of_v_moe() -> None:
    with torch.device("meta"):
        model = build_backbone("vit_s32", num_classes=1000, image_size=224)
    assert list(mlp_blocks(model)) == [f"blocks.{i}" for i in range(8)]
    assert model.get_parameter("blocks.0.mlp.fc1.weight").shape == (2048, 512)
    assert model.get_parameter("pos_embed").shape == (1, 50, 512)
