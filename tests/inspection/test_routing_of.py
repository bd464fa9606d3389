"""The routing of given images as arrays, for every kind of backbone."""

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import routerbench as rb
from routerbench.build import router_names

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": 64}),
    "registers": (
        "vit_small_patch16_dinov3",
        {"depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": 64},
    ),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "window_size": 2, "depths": (1, 1, 2, 2), "embed_dim": 8, "num_heads": (1, 1, 1, 1)},
    ),
}

OF_MIXTURES = ("soft", "soft_identity", "uniform")


def sparse(kind: str = "vit", router: str = "token_choice", **settings: Any) -> nn.Module:
    name, arguments = SMALL[kind]
    model = timm.create_model(name, num_classes=3, **arguments)
    return rb.sparsify(model, router=router, num_experts=4, placement="last_2", **settings)


IMAGES = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "layouts"),
    [
        ("vit", [((4, 4), 1)]),
        ("registers", [((4, 4), 5)]),
        ("convnext", [((4, 4), 0), ((2, 2), 0)]),
        ("swin", [((4, 4), 0), ((2, 2), 0)]),
    ],
)
def test_where_tokens_lie(kind: str, layouts: list[tuple[tuple[int, int], int]]) -> None:
    found = rb.routing_of(sparse(kind), IMAGES)
    assert [(layer.grid, layer.num_prefix) for layer in found.values()] == layouts
    for layer in found.values():
        num_tokens = math.prod(layer.grid) + layer.num_prefix
        assert layer.gates.shape == layer.share.shape == (5, num_tokens, 4)
        for values in (layer.expert, layer.first, layer.gate, layer.slots, layer.dropped):
            assert values.shape == (5, num_tokens)


def test_images_that_are_not_square() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=16, num_heads=2, img_size=(32, 96))
    rb.sparsify(model, router="token_choice", num_experts=4, placement="last_2")
    (layer,) = rb.routing_of(model, torch.randn(2, 3, 32, 96)).values()
    assert layer.grid == (2, 6)
    convnext = rb.routing_of(sparse("convnext"), torch.randn(2, 3, 32, 96))
    assert [layer.grid for layer in convnext.values()] == [(2, 6), (1, 3)]


def test_images_of_another_size_than_the_model_says() -> None:
    name, arguments = SMALL["vit"]
    model = timm.create_model(name, dynamic_img_size=True, **arguments)
    rb.sparsify(model, router="token_choice", num_experts=4, placement="last_2")
    (layer,) = rb.routing_of(model, torch.randn(2, 3, 32, 96)).values()
    assert (layer.grid, layer.num_prefix) == ((2, 6), 1)


@pytest.mark.parametrize("router", router_names())
def test_every_router_says_the_same_of_itself(router: str) -> None:
    layer = next(iter(rb.routing_of(sparse(router=router), IMAGES).values()))
    np.testing.assert_allclose(layer.gates.sum(-1), 1, rtol=1e-4)
    np.testing.assert_array_equal(layer.first, layer.gates.argmax(-1))
    np.testing.assert_array_equal(layer.gate, layer.gates.max(-1))
    np.testing.assert_array_equal(layer.dropped, layer.expert < 0)
    np.testing.assert_array_equal(layer.dropped, layer.share.sum(-1) == 0)
    served = np.take_along_axis(layer.share, layer.expert[..., None].clip(0), -1)[..., 0]
    assert (served[~layer.dropped] > 0).all()
    assert (layer.dispatch is None) == (layer.combine is None) == (router not in OF_MIXTURES)
    if layer.dispatch is not None and layer.combine is not None:
        np.testing.assert_allclose(layer.dispatch.sum(1), 1, rtol=1e-4)
        np.testing.assert_allclose(layer.combine.sum((2, 3)), 1, rtol=1e-4)
        np.testing.assert_allclose(layer.slots, layer.dispatch.sum((2, 3)), rtol=1e-4)
    else:
        np.testing.assert_allclose(layer.slots, layer.share.sum(-1), rtol=1e-5)


def test_groups_and_what_a_batch_leaves_over() -> None:
    # Five images in groups of two: the fifth is a group of its own, as in an evaluation.
    model = sparse(group=2, capacity_factor=0.5)
    together = next(iter(rb.routing_of(model, IMAGES).values()))
    apart = [next(iter(rb.routing_of(model, IMAGES[part]).values())) for part in ([0, 1], [2, 3], [4])]
    for name in ("gates", "expert", "slots"):
        parts = np.concatenate([getattr(part, name) for part in apart])
        np.testing.assert_allclose(getattr(together, name), parts, rtol=1e-4)
    assert together.dropped.any()
    fewer = next(iter(rb.routing_of(model, IMAGES[:1]).values()))
    assert fewer.expert.shape == (1, 17)


def test_numpy_will_do_and_images_are_routed_alone() -> None:
    model = sparse()
    one = next(iter(rb.routing_of(model, IMAGES.double().numpy()).values()))
    other = next(iter(rb.routing_of(model, IMAGES[3:4]).values()))
    np.testing.assert_array_equal(one.expert[3], other.expert[0])


def test_the_model_stays_as_it_was() -> None:
    model = sparse().train()
    model.get_submodule("norm").eval()
    model(IMAGES)
    before = {name: layer.routing for name, layer in rb.moe_layers(model).items()}
    training = [module.training for module in model.modules()]
    found = rb.routing_of(model, IMAGES)
    assert [module.training for module in model.modules()] == training
    assert all(layer.routing is before[name] for name, layer in rb.moe_layers(model).items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    evaluated = rb.routing_of(model.eval(), IMAGES)
    for name, layer in found.items():
        np.testing.assert_array_equal(layer.expert, evaluated[name].expert)


def test_a_dense_model_routes_nothing() -> None:
    name, arguments = SMALL["vit"]
    assert rb.routing_of(timm.create_model(name, **arguments), IMAGES) == {}


def test_what_is_no_batch_is_refused() -> None:
    for images in (IMAGES[0], IMAGES[:0]):
        with pytest.raises(ValueError, match=r"is no batch of images: give \(B, 3, H, W\), normalised"):
            rb.routing_of(sparse(), images)


def test_a_model_that_sees_images_in_parts_is_refused() -> None:
    model = timm.create_model("mobilevit_xxs", num_classes=3)
    rb.sparsify(model, router="token_choice", num_experts=2, placement="last_2")
    training = [module.training for module in model.modules()]
    with pytest.raises(ValueError, match=r"of this model sees 2 images as 8: take a model whose MLPs see"):
        rb.routing_of(model, torch.randn(2, 3, 64, 64))
    assert [module.training for module in model.modules()] == training


def test_tokens_that_lie_in_no_grid_are_one_row() -> None:
    model = timm.create_model("hiera_tiny_224", num_classes=3)  # whose tokens are not row by row
    rb.sparsify(model, router="token_choice", num_experts=2, placement=[11])
    (layer,) = rb.routing_of(model, torch.randn(1, 3, 224, 224)).values()
    assert layer.grid == (1, 49)
