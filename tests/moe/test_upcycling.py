"""Experts that start as the dense MLP leave the function of a trained network as it was."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from routerbench.build import build_backbone, sparsify
from routerbench.moe.surgery import moe_layers

NUM_EXPERTS = 4
# Room for every choice, and weights that sum to one: what a token gets back is one and the same MLP.
ROUTERS = [
    ("token_choice", {"top_k": 1, "capacity_factor": float(NUM_EXPERTS)}),
    ("token_choice", {"top_k": 2, "capacity_factor": NUM_EXPERTS / 2}),
    ("expert_choice", {"capacity_factor": float(NUM_EXPERTS)}),
]


def trained(name: str, **arguments: Any) -> nn.Module:
    """A backbone whose weights are no longer those of its start."""
    model = build_backbone(name, num_classes=10, image_size=32, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(("router", "settings"), ROUTERS)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("pocket_vit", {}),
        ("pocket_convnext", {}),
        ("pocket_convnext", {"conv_mlp": True}),
        ("pocket_convnext_iso", {}),
        ("eva02_tiny_patch14_224", {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 8}),
        ("eva02_base_patch14_224", {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 8}),
        ("vit_giant_patch14_dinov2", {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 8}),
    ],
)
def test_an_upcycled_network_computes_what_the_dense_one_does(
    name: str, arguments: dict[str, Any], router: str, settings: dict[str, Any]
) -> None:
    model = trained(name, **arguments)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        sparsify(
            model,
            router,
            NUM_EXPERTS,
            "every_2",
            expert_init="upcycle",
            normalize_combine=True,
            **settings,
        )
        assert moe_layers(model)
        assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_without_normalised_weights_the_gates_scale_the_experts() -> None:
    model = trained("pocket_vit")
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        sparsify(model, "token_choice", 4, "last_2", capacity_factor=4.0, normalize_combine=False)
        assert not torch.allclose(model(images), expected, atol=1e-2)
