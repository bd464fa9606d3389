"""Experts are the MLP that they replace, once for each expert."""

import copy
import re
from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import ConvMlp, GlobalResponseNormMlp, Mlp, SwiGLU
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.build import build_router
from routerbench.moe.experts import Experts, ResponseNorm, why_not
from routerbench.moe.layer import ChannelsFirst, MoE

GELU_TANH: Any = partial(nn.GELU, approximate="tanh")


def drawn(mlp: nn.Module) -> Any:
    """The MLP with weights, biases and norms that are all different from their start."""
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mlp


CHANNELS_LAST = {
    "Mlp": Mlp(8, 12, act_layer=GELU_TANH),
    "GlobalResponseNormMlp": GlobalResponseNormMlp(8, 12),
}
CHANNELS_FIRST = {
    "Mlp of convolutions": Mlp(8, 12, use_conv=True),
    "ConvMlp": ConvMlp(8, 12, act_layer=nn.SiLU),
    "GlobalResponseNormMlp of convolutions": GlobalResponseNormMlp(8, 12, use_conv=True),
}


def one_expert(mlp: nn.Module) -> MoE:
    """A layer of one expert with a slot for every token, whose gate is 1."""
    router = build_router("token_choice", width=8, num_experts=1)
    return MoE(router, Experts.from_dense(mlp, num_experts=1))


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_one_expert_is_the_dense_mlp(name: str) -> None:
    mlp, x = drawn(CHANNELS_LAST[name]), torch.randn(3, 4, 5, 8)
    assert_close(one_expert(mlp)(x), mlp(x))


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_one_expert_is_the_dense_mlp_of_a_feature_map(name: str) -> None:
    mlp, x = drawn(CHANNELS_FIRST[name]), torch.randn(3, 8, 4, 5)
    assert_close(ChannelsFirst(one_expert(mlp))(x), mlp(x))


@pytest.mark.parametrize("router", ["token_choice", "expert_choice", "sinkhorn_token_choice", "hash", "soft"])
def test_one_expert_with_room_for_all_is_the_dense_mlp_under_any_router(router: str) -> None:
    mlp, x = drawn(Mlp(8, 12)), torch.randn(3, 6, 8)
    moe = MoE(build_router(router, width=8, num_experts=1), Experts.from_dense(mlp, 1))
    if router != "soft":
        assert_close(moe(x), mlp(x))
        return
    # A soft slot holds a mixture: equal to the dense MLP where all tokens of an image are.
    same = x[:, :1].expand(-1, 6, -1)
    assert_close(moe(same), mlp(same))


def test_each_expert_has_its_own_slots_and_weights_by_hand() -> None:
    # Expert 0: relu(x * 2 + 1) * 3 + 0; expert 1: relu(x * -1 + 0) * 1 + 5.
    experts = Experts(num_experts=2, width=1, hidden=1, act_layer=nn.ReLU)
    experts.load_state_dict(
        {
            "w1": torch.tensor([[[2.0]], [[-1.0]]]),
            "b1": torch.tensor([[1.0], [0.0]]),
            "w2": torch.tensor([[[3.0]], [[1.0]]]),
            "b2": torch.tensor([[0.0], [5.0]]),
        }
    )
    slots = torch.tensor([[[1.0], [-1.0]], [[2.0], [-2.0]]])
    assert experts(slots).tolist() == [[[9], [0]], [[5], [7]]]


def test_experts_start_apart_and_those_of_a_dense_mlp_alike() -> None:
    experts = Experts(num_experts=3, width=8, hidden=12)
    assert not torch.equal(experts.w1[0], experts.w1[1])
    assert not experts.b1.any()
    assert experts.w1.abs().max() <= (6 / 20) ** 0.5  # Xavier's bound for 8 inputs and 12 outputs
    mlp = drawn(Mlp(8, 12))
    experts = Experts.from_dense(mlp, num_experts=3)
    for e in range(3):
        assert_close(experts(torch.ones(3, 1, 8))[e], mlp(torch.ones(1, 8)))


def test_experts_take_type_device_and_dropout_of_the_mlp() -> None:
    experts = Experts.from_dense(Mlp(8, 12, drop=0.25).double(), num_experts=2)
    assert experts.w1.dtype == experts.b2.dtype == torch.float64
    assert (experts.drop1.p, experts.drop2.p) == (0.25, 0.25)
    conv = Experts.from_dense(ConvMlp(8, 12, drop=0.5), num_experts=2)
    assert (conv.drop1.p, conv.drop2.p) == (0.5, 0.0)  # it drops between its layers alone
    assert Experts.from_dense(Mlp(8, 12, device="meta"), num_experts=2).w1.is_meta
    # The activation is the block's own, not shared with it.
    mlp = Mlp(8, 12, act_layer=nn.PReLU)
    assert isinstance(Experts.from_dense(mlp, 2).act, nn.PReLU)
    assert Experts.from_dense(mlp, 2).act is not mlp.act


def test_experts_do_not_share_memory_with_the_mlp() -> None:
    mlp = GlobalResponseNormMlp(8, 12)
    before = copy.deepcopy(mlp.state_dict())
    with torch.no_grad():
        for parameter in Experts.from_dense(mlp, num_experts=1).parameters():
            parameter.add_(1)
    assert_close(mlp.state_dict(), before, rtol=0, atol=0)


def test_dropout_is_of_training_alone() -> None:
    experts = Experts(num_experts=1, width=8, hidden=64, dropout=0.5)
    slots = torch.randn(1, 20, 8)
    assert not torch.equal(experts(slots), experts(slots))
    experts.eval()
    assert torch.equal(experts(slots), experts(slots))


def test_response_norm_by_hand() -> None:
    # One expert, one group, two slots, two channels: norms over slots 5 and 10, over their mean 2/3 and 4/3.
    norm = ResponseNorm(num_experts=1, hidden=2, eps=0.0)
    norm.load_state_dict(
        {
            "weight": torch.tensor([3.0, 0.0]).view(1, 1, 1, 2),
            "bias": torch.tensor([0.0, 1.0]).view(1, 1, 1, 2),
        }
    )
    hidden = torch.tensor([[[[3.0, 6.0], [4.0, 8.0]]]])
    # Channel 0: x + 3 * x * 2/3. Channel 1: x + 1.
    assert_close(
        norm(hidden, torch.ones(1, 1, 2, dtype=torch.bool)), torch.tensor([[[[9.0, 7.0], [12.0, 9.0]]]])
    )


def test_response_norm_is_of_each_expert_and_group_alone() -> None:
    experts = drawn(Experts.from_dense(drawn(GlobalResponseNormMlp(8, 12)), num_experts=2))
    slots = torch.randn(2, 6, 8)
    both = experts(slots, torch.ones(slots.shape[0], 2, 3, dtype=torch.bool))
    assert_close(both[:, :3], experts(slots[:, :3]))
    assert_close(both[:, 3:], experts(slots[:, 3:]))


def test_response_norm_does_not_see_empty_slots() -> None:
    experts = drawn(Experts.from_dense(drawn(GlobalResponseNormMlp(8, 12)), num_experts=2))
    slots = torch.randn(2, 4, 8)
    slots[:, 3] = 0
    filled = torch.tensor([True, True, True, False]).expand(2, 1, 4)
    assert_close(experts(slots, filled)[:, :3], experts(slots[:, :3]))


def test_response_norm_of_an_expert_without_tokens_has_finite_gradients() -> None:
    experts = Experts.from_dense(GlobalResponseNormMlp(8, 12), num_experts=1)
    slots = torch.zeros(1, 4, 8, requires_grad=True)
    experts(slots).sum().backward()
    assert slots.grad is not None
    assert slots.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in experts.parameters())


class OtherMlp(Mlp):
    """A class that looks like timm's and may do something else."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


ONLY = "only timm's Mlp, ConvMlp, GlobalResponseNormMlp"


@pytest.mark.parametrize(
    ("mlp", "message"),
    [
        (SwiGLU(8, 12), f"experts cannot replace an MLP of class SwiGLU: {ONLY}"),
        (OtherMlp(8, 12), f"experts cannot replace an MLP of class OtherMlp: {ONLY}"),
        (nn.Identity(), f"experts cannot replace an MLP of class Identity: {ONLY}"),
        (Mlp(8, 12, bias=False), "experts cannot replace this Mlp: it has no biases"),
        (Mlp(8, 12, bias=(True, False)), "experts cannot replace this Mlp: it has no biases"),
        (
            Mlp(8, 12, norm_layer=nn.LayerNorm),
            "experts cannot replace this Mlp: it has a norm between its layers",
        ),
    ],
)
def test_mlps_that_experts_cannot_replace(mlp: nn.Module, message: str) -> None:
    assert why_not(mlp) == message
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Experts.from_dense(mlp, 2)


@pytest.mark.parametrize("mlp", [*CHANNELS_LAST.values(), *CHANNELS_FIRST.values()])
def test_mlps_that_experts_can_replace(mlp: nn.Module) -> None:
    assert why_not(mlp) is None
