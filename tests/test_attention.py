"""The path of attention: chosen by device and precision, and never a part of what a model is."""

import copy

import pytest
import torch
from torch import nn

from routerbench.attention import choose_attention
from routerbench.build import build_backbone, sparsify
from routerbench.costs import static_costs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = {"depth": 2, "embed_dim": 16, "num_heads": 2}


def moe_vit() -> nn.Module:
    return sparsify(build_backbone("pocket_vit", 10, 32, **TINY), "token_choice", 4, [1])


@pytest.mark.parametrize(
    ("device", "dtype", "path"),
    [
        (CPU, torch.float32, "fused"),
        (CPU, torch.bfloat16, "plain"),
        (CPU, torch.float16, "plain"),
        (CUDA, torch.float32, "fused"),
        (CUDA, torch.bfloat16, "fused"),
    ],
)
def test_the_path_is_chosen_by_device_and_precision(
    device: torch.device, dtype: torch.dtype, path: str
) -> None:
    model = moe_vit()
    assert choose_attention(model, device, dtype) == path
    flags = [module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")]
    assert flags == [path == "fused"] * 2


def test_a_choice_of_the_user_of_timm_stands() -> None:
    model = moe_vit()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010  as TIMM_FUSED_ATTN=0 does
    assert choose_attention(model, CPU, torch.float32) == "plain"


def test_a_model_without_attention_has_no_path() -> None:
    size = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
    assert choose_attention(build_backbone("pocket_convnext", 10, 32, **size), CPU, torch.bfloat16) is None


def test_the_path_changes_neither_what_a_model_computes_nor_what_it_costs() -> None:
    plain = moe_vit().eval()
    fused, images = copy.deepcopy(plain), torch.randn(2, 3, 32, 32)
    choose_attention(plain, CPU, torch.bfloat16)
    torch.testing.assert_close(plain(images), fused(images))
    assert plain.state_dict().keys() == fused.state_dict().keys()
    assert static_costs(plain, (32, 32)) == static_costs(fused, (32, 32))
