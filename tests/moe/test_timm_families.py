"""The families of timm whose blocks hold an `mlp`: experts stand in for it, or one line says why not."""

import re
from typing import Any

import pytest
import timm
import torch

from routerbench.build import sparsify
from routerbench.moe.dense_mlp import why_not
from routerbench.moe.surgery import mlp_blocks, moe_layers, place

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
AT_32 = {**SMALL, "img_size": 32}
AT_28 = {**SMALL, "img_size": 28}  # patches of 14
WINDOWS = {"depths": (1, 2), "embed_dim": 16, "num_heads": (1, 2), "img_size": 32, "window_size": 4}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16)}
AT_64 = {"img_size": 64}

# A small member, what makes it smaller, and the side of its images.
REPLACED = [
    ("vit_tiny_patch16_224", AT_32, 32),
    ("vit_tiny_r_s16_p8_224", AT_32, 32),
    ("vit_small_patch16_18x2_224", AT_32, 32),  # two MLPs side by side
    ("vit_relpos_small_patch16_224", AT_32, 32),
    ("vit_small_patch14_dinov2", AT_28, 28),
    ("vit_giant_patch14_dinov2", AT_28, 28),  # GluMlp
    ("aimv2_large_patch14_224", AT_28, 28),  # SwiGLU without biases
    ("vit_base_patch16_siglip_224", AT_32, 32),
    ("vit_pe_core_tiny_patch16_384", AT_32, 32),
    ("vit_base_mci_224", {"depth": 1}, 224),
    ("naflexvit_base_patch16_gap", SMALL, 32),
    ("samvit_base_patch16", {**AT_32, "global_attn_indexes": ()}, 32),
    ("deit3_small_patch16_224", AT_32, 32),  # LayerScale
    ("deit_tiny_distilled_patch16_224", AT_32, 32),
    ("beit_base_patch16_224", AT_32, 32),
    ("beitv2_base_patch16_224", AT_32, 32),
    ("eva_large_patch14_196", AT_28, 28),
    ("eva02_tiny_patch14_224", AT_28, 28),  # GluMlp
    ("eva02_base_patch14_224", AT_28, 28),  # SwiGLU with a norm
    ("vit_small_patch16_rope_224", AT_32, 32),
    ("vit_small_patch16_dinov3", AT_32, 32),
    ("vit_small_plus_patch16_dinov3", AT_32, 32),  # SwiGLU
    ("deepseek_vit_412m", SMALL, 28),  # GluMlp
    ("qwen3_vit_306m", {**SMALL, "embed_dim": 64}, 32),
    ("cait_xxs24_224", AT_32, 32),
    ("xcit_nano_12_p16_224", AT_32, 32),
    ("volo_d1_224", AT_64, 64),
    ("convit_tiny", {**AT_32, "local_up_to_layer": 1}, 32),
    ("crossvit_tiny_240", {}, 240),
    ("coat_lite_tiny", {"img_size": 32}, 32),
    ("coat_tiny", {"img_size": 32}, 32),
    ("tnt_s_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads_outer": 2}, 32),
    ("pit_ti_224", AT_64, 64),
    ("swin_tiny_patch4_window7_224", WINDOWS, 32),
    ("swinv2_tiny_window8_256", WINDOWS, 32),
    ("swinv2_cr_tiny_224", WINDOWS, 32),
    ("focalnet_tiny_srf", {}, 32),
    ("gcvit_xxtiny", AT_64, 64),
    ("nest_tiny", AT_64, 64),
    ("davit_tiny", {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (1, 2, 2, 2)}, 64),
    (
        "twins_svt_small",
        {**AT_64, "depths": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32), "num_heads": (1, 1, 2, 2)},
        64,
    ),
    ("mvitv2_tiny", AT_64, 64),
    ("hiera_tiny_224", {"embed_dim": 16, "stages": (1, 1, 2, 1)}, 224),
    ("sam2_hiera_tiny", {"embed_dim": 16, "stages": (1, 1, 2, 1)}, 64),
    ("convnext_atto", CONVNEXT, 32),  # convolutions
    ("convnext_tiny", CONVNEXT, 32),
    ("convnextv2_atto", CONVNEXT, 32),  # response norm
    ("inception_next_atto", {"depths": (1, 1, 1, 1)}, 32),
    ("edgenext_xx_small", {"dims": (8, 16, 16, 32), "depths": (1, 1, 2, 2)}, 64),
    ("maxvit_pico_rw_256", AT_64, 64),
    ("coatnet_pico_rw_224", AT_64, 64),
    ("coatnext_nano_rw_224", AT_64, 64),
    ("poolformer_s12", {}, 32),
    ("caformer_s18", {}, 32),  # without biases
    ("mobilevit_xxs", {}, 64),
    ("mobilevitv2_050", {}, 64),
    ("nextvit_small", {}, 64),
    ("efficientformer_l1", {}, 224),  # in its last block alone
    ("csatv2", {}, 256),
]

ONLY = "only timm's Mlp, ConvMlp, GlobalResponseNormMlp, GluMlp, SwiGLU"
PRE_NORM = "its norm stands before its first layer, where a router would not see it"
REFUSED = [
    ("pvt_v2_b0", "stages.3.blocks.1", "MlpWithDepthwiseConv: its convolution dwconv mixes positions"),
    ("fastvit_t8", "stages.3.blocks.1", "ConvMlp: its convolution conv.conv mixes positions"),
    (
        "efficientformerv2_s0",
        "stages.3.blocks.3",
        "ConvMlpWithNorm: its convolution mid.conv mixes positions",
    ),
    ("tiny_vit_5m_224", "stages.3.blocks.1", f"NormMlp: {PRE_NORM}"),
    ("vitamin_small_224", "blocks.13", f"GeGluMlp: {PRE_NORM}"),
    ("levit_128s", "stages.2.blocks.3", "LevitMlp: it has batch norms"),
    ("fasternet_t0", "stages.3.blocks.1", "Sequential: it has batch norms"),
    ("visformer_tiny", "stage3.3", f"SpatialMlp: {ONLY}"),
    ("gemma4_vit_167m", "encoder.blocks.15", f"Gemma4GatedMlp: {ONLY}"),
    ("lowformer_b0", "stages.3.4", f"ResidualBlock: {ONLY}"),
]


@pytest.mark.parametrize(("name", "arguments", "side"), REPLACED, ids=[name for name, *_ in REPLACED])
def test_experts_stand_in_for_the_mlp(name: str, arguments: dict[str, Any], side: int) -> None:
    model = timm.create_model(name, num_classes=5, **arguments)
    blocks: list[Any] = list(mlp_blocks(model).values())
    suitable = [index for index, block in enumerate(blocks) if not why_not(block.mlp)]
    sparsify(model, "expert_choice", 2, [suitable[-1]])
    logits = model(torch.randn(2, 3, side, side))
    assert logits.shape == (2, 5)
    logits.square().mean().backward()
    (layer,) = moe_layers(model).values()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert layer.routing is not None
    # MobileViT gives its MLPs each image as four.
    assert layer.routing.plan.gates.shape[0] == (8 if name == "mobilevit_xxs" else 2)


@pytest.mark.parametrize(("name", "block", "reason"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_why_experts_do_not_stand_in(name: str, block: str, reason: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    last = len(mlp_blocks(model)) - 1
    message = f"{block}: experts cannot replace an MLP of class {reason}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sparsify(model, "expert_choice", 2, [last])
    assert not moe_layers(model)


@pytest.mark.parametrize("name", ["mixer_s32_224", "resnet18", "mambaout_femto", "repvit_m0_9"])
def test_models_without_an_mlp_in_a_block(name: str) -> None:
    with torch.device("meta"):
        assert mlp_blocks(timm.create_model(name)) == {}


@pytest.mark.parametrize(
    ("name", "num_blocks", "last_2", "stage"),
    [
        ("vit_tiny_patch16_224", 12, [9, 11], None),
        ("vit_small_patch16_18x2_224", 36, [33, 35], None),
        ("hiera_tiny_224", 12, [9, 11], None),  # in one row
        ("cait_xxs24_224", 24, [21, 23], None),  # without the two of class attention
        ("xcit_nano_12_p16_224", 12, [9, 11], None),
        ("swin_tiny_patch4_window7_224", 12, [9, 11], [1, 3, 9, 11]),  # 2, 2, 6, 2
        ("convnext_tiny", 18, [14, 17], [2, 5, 14, 17]),  # 3, 3, 9, 3
        ("maxvit_tiny_rw_224", 22, [17, 21], [3, 7, 17, 21]),  # 2, 2, 5, 2, each twice
        ("coatnet_0_rw_224", 9, [6, 8], [6, 8]),  # 7 and 2 after two stages of convolutions
        ("coat_lite_tiny", 8, [5, 7], [1, 3, 5, 7]),
        ("twins_svt_small", 18, [13, 17], [1, 3, 13, 17]),  # 2, 2, 10, 4
        ("volo_d1_224", 18, [15, 17], [3, 7, 15, 17]),  # 4, 4, 8, 2
        ("mobilevit_xxs", 9, [5, 8], [1, 5, 8]),  # 2, 4, 3
        ("csatv2", 4, [1, 3], [1, 3]),  # 2 and 2 after two stages of convolutions
    ],
)
def test_placement_in_stock_models(
    name: str, num_blocks: int, last_2: list[int], stage: list[int] | None
) -> None:
    with torch.device("meta"):
        names = list(mlp_blocks(timm.create_model(name)))
    assert len(names) == num_blocks
    assert place(names, "last_2") == last_2
    assert place(names, "every_2") == list(range(1, num_blocks, 2))
    if stage is None:
        with pytest.raises(ValueError, match=r"^placement=stage needs a model in stages"):
            place(names, "stage")
    else:
        assert place(names, "stage") == stage


@pytest.mark.parametrize(
    ("name", "part"),
    [("cait_xxs24_224", "token_only"), ("xcit_nano_12_p16_224", "cls"), ("volo_d1_224", "post_network")],
)
def test_blocks_of_class_attention_are_left_as_they_are(name: str, part: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert any(part in block for block, _ in model.named_modules())
    assert not [block for block in mlp_blocks(model) if part in block]
