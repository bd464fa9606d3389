"""Placement by hand, and stock timm models with MoE layers in place of MLPs."""

import re
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import GatedMlp
from torch import nn
from torch.testing import assert_close

from routerbench.build import build_backbone, build_router, sparsify
from routerbench.moe.experts import Experts
from routerbench.moe.layer import ChannelsFirst, MoE
from routerbench.moe.surgery import blank_images, input_size, mlp_blocks, moe_layers, place, replace_mlps

VIT = [f"blocks.{i}" for i in range(12)]
# 3, 3, 9 and 3 blocks: 18 in all, the last of the stages being 2, 5, 14 and 17.
CONVNEXT = [f"stages.{s}.blocks.{b}" for s, depth in enumerate((3, 3, 9, 3)) for b in range(depth)]


@pytest.mark.parametrize(
    ("names", "placement", "expected"),
    [
        (VIT, "last_2", [9, 11]),
        (VIT[:6], "last_2", [3, 5]),
        (VIT[:7], "last_2", [3, 5]),  # the last two odd blocks, not the last block
        (VIT[:2], "last_2", [1]),
        (VIT, "every_2", [1, 3, 5, 7, 9, 11]),
        (VIT[:5], "every_2", [1, 3]),
        (VIT, "last_half", [6, 7, 8, 9, 10, 11]),
        (VIT[:5], "last_half", [3, 4]),
        (VIT, "none", []),
        (VIT, [], []),
        (VIT, [11, 0, 4], [0, 4, 11]),
        (VIT, (3,), [3]),
        (CONVNEXT, "last_2", [14, 17]),
        (CONVNEXT, "every_2", [1, 3, 5, 7, 9, 11, 13, 15, 17]),
        (CONVNEXT, "last_half", [9, 10, 11, 12, 13, 14, 15, 16, 17]),
        (CONVNEXT, "stage", [2, 5, 14, 17]),
        (CONVNEXT, "none", []),
        (CONVNEXT, [16, 2], [2, 16]),
        (["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"], "stage", [1, 2]),  # Swin's names
    ],
)
def test_placement_by_hand(names: list[str], placement: Any, expected: list[int]) -> None:
    assert place(names, placement) == expected


PLACEMENTS = "last_2, every_2, last_half, stage, none"


@pytest.mark.parametrize(
    ("names", "placement", "message"),
    [
        (VIT, "last2", f"placement=last2 is not one of: {PLACEMENTS} (did you mean last_2?)"),
        (VIT, "all", f"placement=all is not one of: {PLACEMENTS}"),
        (VIT, "stage", "placement=stage needs a model in stages, such as a ConvNeXt: this one has none"),
        (VIT, [3, 12], "placement=[3, 12] names block 12: the blocks are 0 to 11"),
        (VIT, [-1], "placement=[-1] names block -1: the blocks are 0 to 11"),
        (VIT, [3, 5, 3], "placement=[3, 5, 3] names a block twice"),
        ([], "last_2", "the model has no block with an MLP to replace: take a ViT, a ConvNeXt, a Swin ..."),
    ],
)
def test_placements_that_make_no_sense(names: list[str], placement: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        place(names, placement)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("vit_tiny_patch16_224", VIT),
        ("convnext_tiny", CONVNEXT),
        ("convnext_iso_small", [f"blocks.{i}" for i in range(18)]),
        (
            "swin_tiny_patch4_window7_224",
            [f"layers.{s}.blocks.{b}" for s, depth in enumerate((2, 2, 6, 2)) for b in range(depth)],
        ),
    ],
)
def test_blocks_of_stock_models(model: str, expected: list[str]) -> None:
    with torch.device("meta"):
        assert list(mlp_blocks(timm.create_model(model))) == expected


def test_a_model_without_mlp() -> None:
    with torch.device("meta"):
        assert mlp_blocks(timm.create_model("resnet18")) == {}


@pytest.mark.parametrize("router", ["token_choice", "expert_choice", "soft", "hash"])
@pytest.mark.parametrize(
    ("model", "arguments", "layer"),
    [
        ("pocket_vit", {"reg_tokens": 4}, MoE),
        ("pocket_convnext", {"conv_mlp": False}, MoE),
        ("pocket_convnext", {"conv_mlp": True}, ChannelsFirst),
        ("pocket_convnext", {"conv_mlp": False, "use_grn": True}, MoE),
        ("pocket_convnext", {"conv_mlp": True, "use_grn": True}, ChannelsFirst),
        ("pocket_convnext_iso", {}, MoE),
    ],
)
def test_mlps_are_replaced_in_place(router: str, model: str, arguments: dict[str, Any], layer: type) -> None:
    backbone = build_backbone(model, num_classes=10, image_size=32, **arguments)
    names = list(mlp_blocks(backbone))
    assert sparsify(backbone, router, 4, [0, 5]) is backbone
    assert list(moe_layers(backbone)) == [names[0], names[5]]
    for index, block in enumerate(mlp_blocks(backbone).values()):
        assert isinstance(block.mlp, layer) is (index in (0, 5))
    images = torch.randn(2, 3, 32, 32)
    logits = backbone(images)
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    for moe in moe_layers(backbone).values():
        assert all(p.grad is not None and p.grad.isfinite().all() for p in moe.parameters())


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("pocket_vit", {}),
        ("pocket_convnext", {"conv_mlp": True}),
        ("pocket_convnext", {"use_grn": True}),
        ("pocket_convnext_iso", {}),
    ],
)
def test_one_expert_with_room_for_all_leaves_the_model_as_it_was(
    model: str, arguments: dict[str, Any]
) -> None:
    backbone = build_backbone(model, num_classes=10, image_size=32, **arguments).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.1)
    images = torch.randn(2, 3, 32, 32)
    expected = backbone(images)
    sparsify(backbone, "token_choice", num_experts=1, placement="every_2")
    assert_close(backbone(images), expected, atol=1e-4, rtol=1e-4)


def test_prefix_tokens_are_routed_like_the_others() -> None:
    backbone = build_backbone("pocket_vit", num_classes=10, image_size=32, reg_tokens=4)
    sparsify(backbone, "expert_choice", 4, "last_2")(torch.zeros(1, 3, 32, 32))
    layer = moe_layers(backbone)["blocks.5"]
    assert layer.routing is not None
    assert layer.routing.plan.gates.shape == (1, 1 + 4 + 16, 4)


def test_the_mode_and_every_other_module_stay() -> None:
    backbone = build_backbone("pocket_vit", num_classes=10, image_size=32)
    others = {id(module) for name, module in backbone.named_modules() if ".mlp" not in name}
    assert sparsify(backbone.eval(), "token_choice", 4, "last_2").training is False
    kept = {id(module) for name, module in backbone.named_modules() if ".mlp" not in name}
    assert kept == others
    assert sparsify(backbone.train(), "token_choice", 4, [0]).training is True


def test_every_parameter_of_soft_has_its_shape_after_surgery() -> None:
    backbone = build_backbone("pocket_vit", num_classes=10, image_size=32)
    sparsify(backbone, "soft", num_experts=4, placement="last_2", capacity_factor=1.0)
    # 17 tokens over 4 experts are 4.25, so 5 slots.
    assert backbone.get_parameter("blocks.5.mlp.router.phi").shape == (64, 4, 5)


def test_layers_of_a_group_of_images() -> None:
    backbone = build_backbone("pocket_vit", num_classes=10, image_size=32)
    sparsify(backbone, "token_choice", 4, "last_2", group=8)
    assert [layer.images_per_group for layer in moe_layers(backbone).values()] == [8, 8]
    assert backbone(torch.randn(9, 3, 32, 32)).shape == (9, 10)


def test_blank_images_show_every_layer_a_routing() -> None:
    backbone = build_backbone("pocket_convnext", num_classes=10, image_size=32)
    blocks = list(mlp_blocks(backbone).values())
    router = partial(build_router, "token_choice", num_experts=4)
    experts = partial(Experts.from_dense, num_experts=4)
    replace_mlps(backbone, [1, 4], lambda width: router(width=width), experts, group="image")
    assert [layer.routing for layer in moe_layers(backbone).values()] == [None, None]
    backbone(blank_images(backbone, (64, 32), num_images=3))
    positions = {}
    for name, layer in moe_layers(backbone).items():
        assert layer.routing is not None
        positions[name] = layer.routing.plan.gates.shape[:2]
    assert positions == {"stages.1.blocks.0": (3, 8 * 4), "stages.2.blocks.2": (3, 4 * 2)}
    assert len(blocks) == 6


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        ("vit_tiny_patch16_224", {"img_size": 96}, (96, 96)),
        ("vit_tiny_patch16_224", {"img_size": (64, 96)}, (64, 96)),
        ("convnext_tiny", {}, (224, 224)),
        ("pocket_convnext", {}, (32, 32)),
    ],
)
def test_image_size_of_a_model(model: str, arguments: dict[str, Any], expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert tuple(input_size(timm.create_model(model, **arguments))) == expected


def test_an_mlp_that_experts_cannot_replace_is_named() -> None:
    backbone = build_backbone("pocket_vit", num_classes=10, image_size=32, mlp_layer=GatedMlp)
    message = (
        "blocks.3: experts cannot replace an MLP of class GatedMlp: "
        "only timm's Mlp, ConvMlp, GlobalResponseNormMlp, GluMlp, SwiGLU"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sparsify(backbone, "token_choice", 4, "last_2")


def test_a_layer_is_not_replaced_again() -> None:
    backbone = sparsify(build_backbone("pocket_vit", num_classes=10, image_size=32), "hash", 4, [5])
    message = (
        "blocks.5: experts cannot replace an MLP of class MoE: "
        "only timm's Mlp, ConvMlp, GlobalResponseNormMlp, GluMlp, SwiGLU"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sparsify(backbone, "hash", 4, "last_2")


def test_surgery_is_done_whole_or_not_at_all() -> None:
    model: Any = build_backbone("pocket_vit", num_classes=10, image_size=32)
    model.blocks[5].mlp = nn.Linear(64, 64)
    with pytest.raises(ValueError, match=r"^blocks\.5: experts cannot replace an MLP of class Linear"):
        sparsify(model, "hash", 4, [3, 5])
    assert not moe_layers(model)


def test_a_placement_that_chooses_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^placement=last_2 chooses no block of this model, which has 1$"):
        place(["blocks.0"], "last_2")


def test_settings_are_refused_where_no_block_is_chosen() -> None:
    model = build_backbone("pocket_vit", num_classes=10, image_size=32)
    with pytest.raises(ValueError, match=r"^router=sft is not one of: .* \(did you mean soft\?\)$"):
        sparsify(model, "sft", 4, "none")


def test_an_mlp_inside_a_block_is_not_a_block_of_its_own() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_relpos_small_patch16_224")  # its position bias is an MLP
    assert list(mlp_blocks(model)) == [f"blocks.{index}" for index in range(12)]


def test_images_of_one_channel() -> None:
    model = timm.create_model("vit_tiny_patch16_224", in_chans=1, depth=2, img_size=32)
    sparsify(model, "soft", 2, "last_2")
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 1000)
    assert model.training


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("pocket_convnext", {}), ("pocket_convnext", {"conv_mlp": True}), ("pocket_convnext_iso", {})],
)
def test_an_extra_skip_around_the_depthwise_convolution(name: str, arguments: dict[str, Any]) -> None:
    backbone: Any = build_backbone(name, num_classes=10, image_size=32, **arguments).eval()
    sparsify(backbone, "token_choice", 1, [5], extra_skip=True)
    *others, last = mlp_blocks(backbone).values()
    block: Any = last
    assert all(isinstance(other.conv_dw, nn.Conv2d) for other in others)
    conv, norm, moe = block.conv_dw.inner, block.norm, block.mlp
    assert (moe.moe if arguments else moe).routing is None
    width = conv.in_channels
    x = torch.randn(2, width, 8, 8)
    # By its definition: x + moe(norm(x + conv_dw(x))), with a layer scale where the block has one.
    inner = x + conv(x)
    inner = moe(norm(inner)) if arguments else moe(norm(inner.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    gamma = 1 if block.gamma is None else block.gamma.view(1, -1, 1, 1)
    assert_close(block(x), x + gamma * inner)


def test_without_an_extra_skip_the_convolution_stays() -> None:
    backbone: Any = sparsify(build_backbone("pocket_convnext_iso", 10, 32), "hash", 4, [5])
    assert isinstance(backbone.blocks[5].conv_dw, nn.Conv2d)


def test_an_extra_skip_needs_a_depthwise_convolution() -> None:
    def refused(model: Any, block: str) -> None:
        message = (
            f"extra_skip=true: {block} has no depthwise convolution that keeps the shape of its input: "
            "take a ConvNeXt, or extra_skip=false"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            sparsify(model, "hash", 4, [3, 5], extra_skip=True)
        assert not moe_layers(model)

    refused(build_backbone("pocket_vit", num_classes=10, image_size=32), "blocks.3")
    for conv in (nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, stride=2, groups=64)):
        model: Any = build_backbone("pocket_convnext_iso", num_classes=10, image_size=32)
        model.blocks[5].conv_dw = conv
        refused(model, "blocks.5")


def test_settings_of_experts_reach_every_layer() -> None:
    backbone = build_backbone("pocket_convnext", num_classes=10, image_size=32)
    sparsify(
        backbone,
        "hash",
        4,
        "stage",
        expert_init="independent",
        expert_mlp_ratio=2.0,
        expert_dropout=0.25,
    )
    for layer, width in zip(moe_layers(backbone).values(), (32, 64, 96, 128), strict=True):
        assert layer.experts.w1.shape == (4, width, 2 * width)
        assert layer.experts.drop1.p == 0.25
        assert not torch.equal(layer.experts.w1[0], layer.experts.w1[1])
