"""Experts are the MLP that they replace, once for each expert."""

import copy
import re
from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import ConvMlp, GatedMlp, GlobalResponseNormMlp, GluMlp, LayerNorm2d, Mlp, SwiGLU
from timm.models.inception_next import ConvMlp as InceptionNextConvMlp
from timm.models.pvt_v2 import MlpWithDepthwiseConv
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.build import build_router
from routerbench.moe.backends import BACKENDS
from routerbench.moe.dense_mlp import why_not
from routerbench.moe.experts import Experts
from routerbench.moe.hidden_norm import ResponseNorm
from routerbench.moe.layer import ChannelsFirst, MoE
from routerbench.moe.plan import SparsePlan

GELU_TANH: Any = partial(nn.GELU, approximate="tanh")


def drawn(mlp: nn.Module) -> Any:
    """The MLP with weights, biases and norms that are all different from their start."""
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mlp


LAYER_NORM: Any = nn.LayerNorm
NO_WEIGHTS: Any = partial(nn.LayerNorm, elementwise_affine=False)
CHANNELS_LAST = {
    "Mlp": Mlp(8, 12, act_layer=GELU_TANH),
    "Mlp without biases": Mlp(8, 12, bias=False),
    "Mlp with one bias": Mlp(8, 12, bias=(False, True)),
    "Mlp with a norm": Mlp(8, 12, norm_layer=LAYER_NORM),
    "GlobalResponseNormMlp": GlobalResponseNormMlp(8, 12),
    "GluMlp, gate last": GluMlp(8, 24),
    "GluMlp, gate first": GluMlp(8, 24, act_layer=nn.SiLU, gate_last=False, norm_layer=LAYER_NORM),
    "GluMlp without biases": GluMlp(8, 24, bias=False),
    "SwiGLU": SwiGLU(8, 12),
    "SwiGLU with a norm": SwiGLU(8, 12, norm_layer=LAYER_NORM, bias=(False, True)),
}
CHANNELS_FIRST = {
    "Mlp of convolutions": Mlp(8, 12, use_conv=True),
    "ConvMlp": ConvMlp(8, 12, act_layer=nn.SiLU),
    "GluMlp of convolutions": GluMlp(8, 24, use_conv=True),
    "InceptionNeXt's ConvMlp": InceptionNextConvMlp(8, 12, act_layer=nn.GELU),
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


def test_gated_experts_by_hand() -> None:
    # relu(x * 2 + 1) * (x * 3 - 1) * 5 + 7: at 1, 3 * 2 * 5 + 7; at -1, the gate is closed.
    experts = Experts(1, 1, 1, act_layer=nn.ReLU, parameters=("w1", "b1", "w2", "b2", "wg", "bg"))
    values = {"w1": 3.0, "b1": -1.0, "w2": 5.0, "b2": 7.0, "wg": 2.0, "bg": 1.0}
    state = experts.state_dict()
    experts.load_state_dict({name: torch.full_like(state[name], value) for name, value in values.items()})
    assert experts(torch.tensor([[[1.0], [-1.0]]])).tolist() == [[[37.0], [7.0]]]


def test_the_parameters_of_experts_are_those_of_the_mlp() -> None:
    def parameters(mlp: nn.Module) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in Experts.from_dense(mlp, 3).named_parameters()}

    plain = {"w1": (3, 8, 12), "b1": (3, 12), "w2": (3, 12, 8), "b2": (3, 8)}
    assert parameters(Mlp(8, 12)) == plain
    assert parameters(Mlp(8, 12, bias=False)) == {"w1": (3, 8, 12), "w2": (3, 12, 8)}
    assert parameters(SwiGLU(8, 12)) == {**plain, "wg": (3, 8, 12), "bg": (3, 12)}
    assert parameters(GluMlp(8, 24)) == {**plain, "wg": (3, 8, 12), "bg": (3, 12)}
    norm = {"hidden_norm.weight": (3, 1, 1, 12), "hidden_norm.bias": (3, 1, 1, 12)}
    assert parameters(Mlp(8, 12, norm_layer=LAYER_NORM)) == {**plain, **norm}


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


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("backend", ["bmm", "grouped", "one_hot"])
def test_dropout_follows_each_of_the_layers_in_training_alone(backend: str, gated: bool) -> None:
    # All weights and tokens are 1. A hidden feature is 8, or 8 * 8 where it has a gate. Half of the 8 hidden
    # features are dropped and the others doubled, and so are half of the 8 outputs: one that stays is 4 times
    # the sum of the k features that stay.
    parameters = ("w1", "w2", "wg") if gated else ("w1", "w2")
    experts = Experts(1, 8, 8, nn.Identity, dropout=0.5, parameters=parameters)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.fill_(1.0)
    num_tokens, feature = 64, 64 if gated else 8
    everyone = torch.arange(num_tokens).view(1, 1, -1)
    ones = torch.ones(1, num_tokens, 1)
    plan = SparsePlan(
        everyone, ones.mT, torch.ones_like(everyone, dtype=torch.bool), ones, torch.tensor([[num_tokens]])
    )

    def output() -> Tensor:
        return BACKENDS[backend](plan, experts, torch.ones(1, num_tokens, 8))[0]

    def kept(out: Tensor) -> Tensor:
        """How many hidden features of each token were kept, by its outputs that were."""
        return out.amax(1) / feature

    experts.drop2.p = 0.0
    first = output() / 2  # the last layer drops nothing, and all outputs of a token are alike
    assert torch.equal(first, first[:, :1].expand_as(first))
    assert 0.4 < kept(first).mean() / 8 < 0.6
    assert len(set(kept(first).tolist())) > 3
    assert set(kept(first).tolist()) <= {float(k) for k in range(9)}
    experts.drop1.p, experts.drop2.p = 0.0, 0.5
    second = output()
    assert set(second.unique().tolist()) == {0.0, 2.0 * 8 * feature}
    assert 0.4 < (second > 0).float().mean() < 0.6
    experts.drop1.p = 0.5
    both = output()
    assert set((both / (4 * feature)).unique().tolist()) <= {float(k) for k in range(9)}
    assert (both == 0).any(1).float().mean() > 0.9  # an output of a token is dropped without its others
    experts.eval()
    assert set(output().unique().tolist()) == {8.0 * feature}


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


class PreNormMlp(Mlp):
    """As in TinyViT and ViTamin, where it is a class of its own."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.norm = nn.LayerNorm(width)


ONLY = "only timm's Mlp, ConvMlp, GlobalResponseNormMlp, GluMlp, SwiGLU"
NO_NORM = "between its layers is no LayerNorm with weights and biases"


@pytest.mark.parametrize(
    ("mlp", "message"),
    [
        (GatedMlp(8, 12), f"experts cannot replace an MLP of class GatedMlp: {ONLY}"),
        (OtherMlp(8, 12), f"experts cannot replace an MLP of class OtherMlp: {ONLY}"),
        (nn.Identity(), f"experts cannot replace an MLP of class Identity: {ONLY}"),
        (
            PreNormMlp(8, 12),
            "experts cannot replace an MLP of class PreNormMlp: its norm stands before its first layer, "
            "where a router would not see it",
        ),
        (
            MlpWithDepthwiseConv(8, 12),
            "experts cannot replace an MLP of class MlpWithDepthwiseConv: its convolution dwconv mixes "
            "positions",
        ),
        (
            nn.Sequential(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.Conv2d(12, 8, 1)),
            "experts cannot replace an MLP of class Sequential: it has batch norms",
        ),
        (Mlp(8, 12, 16), "experts cannot replace this Mlp: it changes the width from 8 to 16"),
        (
            Mlp(8, 12, norm_layer=nn.BatchNorm1d),
            f"experts cannot replace this Mlp: the BatchNorm1d {NO_NORM}",
        ),
        (
            SwiGLU(8, 12, norm_layer=NO_WEIGHTS),
            f"experts cannot replace this SwiGLU: the LayerNorm {NO_NORM}",
        ),
        (
            ConvMlp(8, 12, norm_layer=LayerNorm2d),
            "experts cannot replace this ConvMlp: it has a norm before its activation",
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


GATED_WITH_NORM = SwiGLU(8, 12, norm_layer=LAYER_NORM)


def entries(values: Tensor) -> set[float]:
    return set(values.flatten().tolist())


@pytest.mark.parametrize("mlp", [Mlp(8, 12), GlobalResponseNormMlp(8, 12), GATED_WITH_NORM])
def test_independent_experts_are_drawn_from_the_values_of_the_mlp(mlp: nn.Module) -> None:
    # Each tensor is of values of its own, so that none can come from another.
    with torch.no_grad():
        for number, parameter in enumerate(mlp.parameters()):
            parameter.copy_(100 * number + torch.rand(parameter.shape))
    values = dict(Experts.from_dense(mlp, 1).named_parameters())
    for name, parameter in Experts.from_dense(mlp, 3, expert_init="independent").named_parameters():
        assert entries(parameter) <= entries(values[name])
        assert len({tuple(expert.flatten().tolist()) for expert in parameter}) == 3


def test_independent_experts_have_the_distribution_of_the_mlp() -> None:
    mlp: Any = Mlp(64, 128)
    nn.init.normal_(mlp.fc1.weight, mean=0.5, std=0.02)
    experts = Experts.from_dense(mlp, 4, expert_init="independent")
    for expert in experts.w1:
        assert expert.mean().item() == pytest.approx(0.5, abs=1e-3)
        assert expert.std().item() == pytest.approx(0.02, rel=0.05)
    nn.init.zeros_(mlp.fc1.bias)
    assert not Experts.from_dense(mlp, 4, expert_init="independent").b1.any()


@pytest.mark.parametrize(("ratio", "hidden"), [(0.5, 4), (2.0, 16), (2.6, 21)])
@pytest.mark.parametrize("mlp", [Mlp(8, 12, bias=False), GlobalResponseNormMlp(8, 12), GATED_WITH_NORM])
def test_experts_of_another_hidden_width(mlp: nn.Module, ratio: float, hidden: int) -> None:
    values = dict(Experts.from_dense(mlp, 1).named_parameters())
    shared = Experts.from_dense(mlp, 3, expert_mlp_ratio=ratio)
    assert shared.w1.shape == (3, 8, hidden)
    assert shared(torch.randn(3, 2, 8)).shape == (3, 2, 8)
    for name, parameter in shared.named_parameters():
        assert entries(parameter) <= entries(values[name])
        assert all(torch.equal(expert, parameter[0]) for expert in parameter)
    independent = Experts.from_dense(mlp, 3, expert_init="independent", expert_mlp_ratio=ratio)
    assert independent.w2.shape == (3, hidden, 8)
    assert not torch.equal(independent.w1[0], independent.w1[1])


def test_the_ratio_of_the_block_changes_nothing() -> None:
    mlp = drawn(Mlp(8, 12))
    experts = Experts.from_dense(mlp, 2, expert_init="upcycle", expert_mlp_ratio=1.5)
    assert_close(experts.state_dict(), Experts.from_dense(mlp, 2).state_dict(), rtol=0, atol=0)


def test_dropout_of_experts() -> None:
    def rates(mlp: nn.Module) -> tuple[float, float]:
        experts = Experts.from_dense(mlp, 2, expert_dropout=0.5)
        return experts.drop1.p, experts.drop2.p

    assert rates(Mlp(8, 12)) == rates(SwiGLU(8, 12, drop=0.1)) == (0.5, 0.5)
    assert rates(ConvMlp(8, 12)) == (0.5, 0.0)
    assert Experts.from_dense(Mlp(8, 12, drop=0.5), 2, expert_dropout=0.0).drop1.p == 0.0


INITS = "shared, independent, upcycle"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"expert_init": "shard"},
            f"expert_init=shard is not one of: {INITS} (did you mean shared?)",
        ),
        ({"expert_mlp_ratio": 0.0}, "expert_mlp_ratio=0.0 must be a number above 0"),
        ({"expert_mlp_ratio": -1.0}, "expert_mlp_ratio=-1.0 must be a number above 0"),
        (
            {"expert_mlp_ratio": 0.01},
            "expert_mlp_ratio=0.01 leaves no hidden feature at a width of 8: give more",
        ),
        ({"expert_dropout": -0.1}, "expert_dropout=-0.1 must be a number of at least 0"),
        ({"expert_dropout": 1.0}, "expert_dropout=1.0 must be a number below 1"),
        (
            {"expert_init": "upcycle", "expert_mlp_ratio": 2.0},
            "expert_mlp_ratio=2.0 gives 16 hidden features, and expert_init=upcycle needs the 12 of the "
            "dense MLP: leave it out",
        ),
    ],
)
def test_settings_of_experts_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Experts.from_dense(Mlp(8, 12), 2, **settings)
