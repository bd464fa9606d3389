"""The layer: which tokens are routed together, and what it keeps of it."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from routerbench.build import build_router
from routerbench.moe.experts import Experts
from routerbench.moe.layer import ChannelsFirst, MoE, check_group


def layer_of(group: Any = "image", **settings: float) -> MoE:
    router = build_router("token_choice", width=4, num_experts=2, noise_std=0.0, **settings)
    return MoE(router, Experts(num_experts=2, width=4, hidden=8), group)


def test_a_layer_by_hand() -> None:
    # Width 1, two experts that give 2x and x + 10 for positive x. The gate of expert 0 is 3/4 for positive
    # tokens: logits log(3) and 0 times the sign, here tokens 1 and 1. Capacity 1: token 1 is dropped.
    router = build_router("token_choice", width=1, num_experts=2, capacity=1, noise_std=0.0)
    router.load_state_dict({"scorer.weight": torch.tensor([[3.0], [1.0]]).log()})
    experts = Experts(num_experts=2, width=1, hidden=1, act_layer=nn.ReLU)
    experts.load_state_dict(
        {
            "w1": torch.tensor([[[2.0]], [[1.0]]]),
            "b1": torch.zeros(2, 1),
            "w2": torch.ones(2, 1, 1),
            "b2": torch.tensor([[0.0], [10.0]]),
        }
    )
    layer = MoE(router, experts)
    assert_close(layer(torch.tensor([[[1.0], [1.0]]])), torch.tensor([[[1.5], [0.0]]]))
    assert layer.routing is not None
    assert layer.routing.plan.served.tolist() == [[1, 0]]


def test_a_group_of_images_shares_its_slots() -> None:
    # Image 0 fills every slot that two images share: four of expert 0, and none is left for image 1.
    layer = layer_of(group=2, capacity=4)
    x = torch.ones(2, 4, 4)
    layer(x)
    assert layer.routing is not None
    assert layer.routing.plan.served.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]
    assert not layer(x)[1].any()
    alone = layer_of(group="image", capacity=4)
    assert alone(x)[1].any()


def test_what_a_batch_leaves_over_is_routed_with_the_capacity_of_its_size() -> None:
    layer = layer_of(group=3, capacity_factor=1.0)
    layer(torch.randn(1, 4, 4))
    assert layer.routing is not None
    assert layer.routing.plan.num_slots == 2  # 4 tokens over 2 experts, not 12
    layer(torch.randn(4, 4, 4))
    assert layer.routing.plan.gates.shape == (1, 12, 2)


def test_images_that_a_batch_leaves_over_are_routed_together() -> None:
    # Of five images three are a group and the last two another, in which image 3 takes every slot.
    layer = layer_of(group=3, capacity=4)
    y = layer(torch.ones(5, 4, 4))
    assert [bool(image.any()) for image in y] == [True, False, False, True, False]


def test_gradients_reach_the_tokens_of_a_smaller_group() -> None:
    layer, x = layer_of(group=2), torch.randn(3, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad[2].any()


def test_losses_are_the_mean_over_all_groups() -> None:
    router = build_router("token_choice", 4, 2, noise_std=0.0, load_weight=0.0, importance_weight=1.0)
    layer = MoE(router, Experts(2, 4, 8), group=2)
    x = torch.randn(5, 3, 4)
    layer(x)
    assert layer.routing is not None
    losses = []
    for part in (x[:2], x[2:4], x[4:]):
        tokens = part.reshape(1, -1, 4)
        losses.append(router(tokens).losses["importance"])
    assert_close(layer.routing.losses["importance"], torch.stack(losses).mean())


def test_a_layer_takes_tokens_without_positions_and_odd_layouts() -> None:
    layer = layer_of()
    x = torch.randn(2, 3, 2, 2, 4)
    assert_close(layer(x).view(2, 12, 4), layer(x.view(2, 12, 4)))
    assert layer(torch.randn(5, 4)).shape == (5, 4)
    # Not contiguous in memory.
    assert_close(layer(x.transpose(1, 3)), layer(x.transpose(1, 3).contiguous()))


def test_feature_maps_keep_their_layout() -> None:
    layer, x = layer_of(), torch.randn(2, 4, 3, 5)
    expected = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.equal(ChannelsFirst(layer)(x), expected)


def test_a_copy_forgets_the_latest_decision() -> None:
    layer = layer_of()
    assert layer.routing is None
    layer(torch.randn(2, 4, 4, requires_grad=True))
    assert layer.routing is not None
    assert copy.deepcopy(layer).routing is None
    assert layer.routing is not None


@pytest.mark.parametrize("group", [0, -1, 1.0, True, None, "images", "2"])
def test_groups_that_make_no_sense(group: Any) -> None:
    message = f"group={group} is neither image nor a number of images"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_group(group)


def test_a_layer_checks_its_group() -> None:
    with pytest.raises(ValueError, match=r"^group=0 is neither image nor a number of images$"):
        layer_of(group=0)


@pytest.mark.parametrize(
    ("name", "kind"), [("soft", "Soft"), ("uniform", "Uniform"), ("soft_identity", "Identity")]
)
def test_soft_routers_do_not_mix_images(name: str, kind: str) -> None:
    router = build_router(name, width=4, num_experts=2)
    experts = Experts(num_experts=2, width=4, hidden=8)
    with pytest.raises(
        ValueError, match=f"^group=2 would mix images: {kind} routes each alone, group=image$"
    ):
        MoE(router, experts, group=2)
    assert MoE(router, experts, group=1).images_per_group == 1


@pytest.mark.parametrize("router", ["expert_choice", "hash", "soft"])
def test_router_and_experts_must_agree(router: str) -> None:
    message = "num_experts=5 of the experts is not that of the router, 4"
    with pytest.raises(ValueError, match=f"^{message}$"):
        MoE(build_router(router, 8, 4), Experts(5, 8, 16))


@pytest.mark.parametrize("router", ["expert_choice", "hash", "soft", "uniform"])
def test_a_width_of_nothing_is_refused(router: str) -> None:
    with pytest.raises(ValueError, match=r"^width=0 must be a whole number of at least 1$"):
        build_router(router, 0, 4)
