"""What every router of conf/router keeps, whatever it does; a new yaml is tested by being there."""

import copy
import io
import math
from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.build import build_backbone, build_router, sparsify
from routerbench.config import conf_dir
from routerbench.moe.experts import Experts
from routerbench.moe.layer import ChannelsFirst, MoE
from routerbench.moe.plan import Plan, SparsePlan
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.schema import register_schema

WIDTH, NUM_EXPERTS, NUM_TOKENS = 16, 4, 12
ROUTERS = sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml") if path.stem != "dense")


class Case(NamedTuple):
    """A router and what it is set to."""

    router: str
    settings: dict[str, Any]

    def __str__(self) -> str:
        return "-".join([self.router, *(f"{key}={value}" for key, value in self.settings.items())])

    def defaults(self) -> dict[str, Any]:
        router = OmegaConf.load(conf_dir() / "router" / f"{self.router}.yaml")
        register_schema()  # the yamls multiply
        root = OmegaConf.create({"slots_per_token": 1, "capacity_factor": 1.0, "router": router})
        return {str(key): value for key, value in root.router.items()} | self.settings


CASES = [Case(router, {}) for router in ROUTERS] + [
    Case("token_choice", {"top_k": 2, "batch_priority": True, "capacity_factor": 0.5}),
    Case("token_choice", {"top_k": 2, "gshard_weight": 0.1, "z_weight": 0.1, "capacity_factor": 4.0}),
    Case("sinkhorn_token_choice", {"top_k": 3, "batch_priority": True, "capacity": 2}),
    Case("expert_choice", {"capacity_factor": 2.0, "capacity_multiple_of": 4}),
    Case("sparse_expert_choice", {"noise_std": 1.0, "capacity_factor": 0.5}),
    Case("hash", {"top_k": 2, "capacity_factor": 0.5}),
    Case("random", {"top_k": 2, "capacity_rounding": "round"}),
    Case("soft", {"slots_per_expert": 2}),
]
EVERY_ROUTER = pytest.mark.parametrize("case", CASES, ids=str)


def layer_of(case: Case, group: str | int = "image") -> MoE:
    """A layer whose experts differ and have biases, so that a mistake shows."""
    router = build_router(case.router, WIDTH, NUM_EXPERTS, **case.settings)
    experts = Experts(NUM_EXPERTS, WIDTH, hidden=8)
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.3)
    return MoE(router, experts, group)


def images(num_images: int = 3) -> Tensor:
    return 2 * torch.randn(num_images, NUM_TOKENS, WIDTH)


def plan_of(layer: MoE) -> Plan:
    assert layer.routing is not None
    return layer.routing.plan


def assert_same_routing(one: Plan, other: Plan) -> None:
    for left, right in zip(one.dense(), other.dense(), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(one.gates, other.gates)


def test_there_are_routers() -> None:
    assert len(ROUTERS) >= 8


@EVERY_ROUTER
def test_the_shape_is_kept(case: Case) -> None:
    layer = layer_of(case).eval()
    x = torch.randn(2, 3, 4, WIDTH)
    y = layer(x)
    assert y.shape == x.shape
    flat = layer(x.view(2, 12, WIDTH))
    assert flat.shape == (2, 12, WIDTH)
    assert torch.equal(y.view(2, 12, WIDTH), flat)
    channels_first = ChannelsFirst(layer)(x.permute(0, 3, 1, 2))
    assert torch.equal(channels_first.permute(0, 2, 3, 1), y)


@EVERY_ROUTER
def test_evaluation_is_deterministic_and_training_is_noisy_where_the_yaml_says_so(case: Case) -> None:
    layer, x = layer_of(case), images()
    layer(x)
    assert torch.equal(layer.eval()(x), layer(x))
    gates = plan_of(layer).gates
    layer.train()(x)
    one = plan_of(layer).gates
    layer(x)
    other = plan_of(layer).gates
    noisy = case.defaults().get("noise_std", 0.0) > 0
    assert torch.equal(one, other) is not noisy
    assert torch.equal(one, gates) is not noisy


@EVERY_ROUTER
def test_groups_do_not_see_each_other(case: Case) -> None:
    layer, x = layer_of(case).eval(), images()
    y = layer(x)
    changed = torch.cat([x[:1], 5 * torch.randn(1, NUM_TOKENS, WIDTH), x[2:]])
    assert torch.equal(layer(changed)[[0, 2]], y[[0, 2]])
    for i in range(len(x)):
        assert_close(layer(x[i : i + 1])[0], y[i])


@EVERY_ROUTER
def test_every_parameter_gets_a_finite_gradient(case: Case) -> None:
    layer, x = layer_of(case), images().requires_grad_()
    y = layer(x)
    assert layer.routing is not None
    (y.square().sum() + sum(layer.routing.losses.values())).backward()
    for name, parameter in {"x": x, **dict(layer.named_parameters())}.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for name, parameter in layer.router.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any(), name


@EVERY_ROUTER
def test_losses_are_finite_scalars(case: Case) -> None:
    layer = layer_of(case)
    for mode in (True, False):
        layer.train(mode)(images())
        assert layer.routing is not None
        for name, loss in layer.routing.losses.items():
            assert loss.shape == (), name
            assert loss.isfinite(), name
            assert loss >= 0, name
    weights = {key for key, value in case.defaults().items() if key.endswith("_weight") and value > 0}
    layer.train()(images())
    assert layer.routing is not None
    assert {f"{name}_weight" for name in layer.routing.losses} == weights


@EVERY_ROUTER
def test_a_token_sits_once_in_an_expert_and_alone_in_its_slot(case: Case) -> None:
    layer = layer_of(case)
    layer(images())
    plan = plan_of(layer)
    dispatch, combine = plan.dense()
    if isinstance(plan, SparsePlan):
        assert set(dispatch.unique().tolist()) <= {0.0, 1.0}
        assert dispatch.sum(3).max() <= 1
        assert dispatch.sum(1).max() <= 1
        assert not combine[dispatch == 0].any()
    else:
        assert_close(dispatch.sum(1), torch.ones_like(dispatch[:, 0]))
        assert_close(combine.sum((2, 3)), torch.ones_like(combine[:, :, 0, 0]))
    assert (combine >= 0).all()
    assert (combine.sum((2, 3)) <= 1 + 1e-6).all()


@EVERY_ROUTER
@pytest.mark.parametrize("num_tokens", [1, 5, 12, 33])
def test_the_capacity_is_kept(case: Case, num_tokens: int) -> None:
    settings = {"capacity": None, "capacity_rounding": "ceil", "capacity_multiple_of": 1, "top_k": 1}
    settings |= case.defaults()
    factor = case.settings.get("capacity_factor", 1.0)
    share = num_tokens * settings["top_k"] * factor / NUM_EXPERTS
    rounded = math.ceil(share) if settings["capacity_rounding"] == "ceil" else max(1, round(share))
    multiple = settings["capacity_multiple_of"]
    capacity = settings["capacity"] or math.ceil(rounded / multiple) * multiple
    expected = settings.get("slots_per_expert") or min(capacity, num_tokens)
    router = build_router(case.router, WIDTH, NUM_EXPERTS, **case.settings)
    plan = router(torch.randn(2, num_tokens, WIDTH)).plan
    assert plan.num_slots == expected
    assert plan.dense()[0].shape == (2, num_tokens, NUM_EXPERTS, expected)
    assert (plan.load <= expected).all()


@EVERY_ROUTER
@pytest.mark.parametrize("training", [True, False])
def test_the_layer_is_its_dense_definition(case: Case, training: bool) -> None:
    layer, x = layer_of(case).double().train(training), images().double()
    layer(x)
    for parameter in layer.parameters():
        parameter.grad = None
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    cotangent = torch.randn_like(x)
    torch.manual_seed(1)
    y = layer(one)
    (y * cotangent).sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters()]
    for parameter in layer.parameters():
        parameter.grad = None
    torch.manual_seed(1)
    expected = by_definition(layer, other)
    (expected * cotangent).sum().backward()
    assert_close(y, expected, atol=1e-10, rtol=1e-10)
    assert_close(one.grad, other.grad, atol=1e-10, rtol=1e-10)
    for gradient, parameter in zip(gradients, layer.parameters(), strict=True):
        assert_close(gradient, parameter.grad, atol=1e-10, rtol=1e-10)


def by_definition(layer: MoE, x: Tensor) -> Tensor:
    dispatch, combine = layer.router(x).plan.dense()
    experts = layer.experts
    slots = torch.einsum("gsec,gsd->gecd", dispatch, x)
    hidden = experts.act(torch.einsum("gecd,edh->gech", slots, experts.w1) + experts.b1[:, None])
    slots = torch.einsum("gech,ehd->gecd", hidden, experts.w2) + experts.b2[:, None]
    return torch.einsum("gsec,gecd->gsd", combine, slots)


@EVERY_ROUTER
def test_double_precision_stays_double(case: Case) -> None:
    layer = layer_of(case).double()
    assert layer(images().double()).dtype == torch.float64
    plan = plan_of(layer)
    assert layer.routing is not None
    for tensor in (plan.gates, plan.demand, plan.load, plan.expert_share, *plan.dense()):
        assert tensor.dtype == torch.float64
    assert all(loss.dtype == torch.float64 for loss in layer.routing.losses.values())


@EVERY_ROUTER
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_touch_the_routing(case: Case, dtype: torch.dtype) -> None:
    layer, x = layer_of(case).eval(), images().to(dtype)
    expected = layer.router(x.float()).plan
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert_same_routing(plan_of(layer), expected)
    assert y.dtype == dtype
    assert plan_of(layer).gates.dtype == torch.float32
    assert_close(y.float(), layer.float()(x.float()), atol=0.2, rtol=0.1)


@EVERY_ROUTER
def test_a_model_in_bfloat16_routes_in_single_precision(case: Case) -> None:
    layer, x = layer_of(case).eval(), images().bfloat16()
    layer.router(x)  # the first tokens may give a parameter its shape
    y = layer.bfloat16()(x)
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()
    assert plan_of(layer).gates.dtype == torch.float32
    # The same routing as that of the rounded weights in single precision.
    assert_same_routing(plan_of(layer), copy.deepcopy(layer.router).float()(x).plan)


@EVERY_ROUTER
def test_a_state_dict_brings_the_routing_back(case: Case) -> None:
    layer, x = layer_of(case).eval(), images()
    y = layer(x)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = layer_of(case).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(x), y)
    assert_same_routing(plan_of(other), plan_of(layer))


@EVERY_ROUTER
def test_a_model_can_be_copied_after_a_forward_pass(case: Case) -> None:
    model, x = nn.Sequential(layer_of(case)), images().requires_grad_()
    model(x)
    twin = copy.deepcopy(model).eval()
    assert torch.equal(twin(x), model.eval()(x))
    layer = model[0]
    assert isinstance(layer, MoE)
    assert layer.routing is not None


@EVERY_ROUTER
def test_groups_of_images(case: Case) -> None:
    if not layer_of(case).router.spans_images:
        with pytest.raises(
            ValueError, match=r"^group=2 would mix images: \w+ routes each alone, group=image$"
        ):
            layer_of(case, group=2)
        return
    layer, x = layer_of(case, group=2).eval(), images(5)
    y = layer(x)
    assert plan_of(layer).gates.shape == (2, 2 * NUM_TOKENS, NUM_EXPERTS)
    # The last image is a smaller group, which is routed alone.
    for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
        assert_close(layer(x[part]), y[part])
    assert plan_of(layer).gates.shape == (1, NUM_TOKENS, NUM_EXPERTS)
    # A group is the tokens of its images, one image after the other.
    layer.images_per_group = 1
    assert_close(layer(x[:4].view(2, 2 * NUM_TOKENS, WIDTH)).view(4, NUM_TOKENS, WIDTH), y[:4])


@EVERY_ROUTER
def test_a_plan_says_of_itself_what_its_dense_tensors_show(case: Case) -> None:
    layer = layer_of(case)
    layer(images())
    plan = plan_of(layer)
    dispatch, _ = plan.dense()
    assert_close(plan.load, dispatch.sum((1, 3)))
    slots = 1 if isinstance(plan, SparsePlan) else plan.num_slots / NUM_TOKENS
    assert_close(plan.expert_share, dispatch.sum(3) / slots)
    assert torch.equal(plan.dropped, dispatch.sum((2, 3)) == 0)
    assert_close(plan.gates.sum(2), torch.ones_like(plan.gates[:, :, 0]))
    top_k = case.defaults().get("top_k", 1)
    assert_close(plan.demand.sum(1), torch.full((3,), float(NUM_TOKENS * top_k)))
    assert (plan.demand >= 0).all()
    if isinstance(plan, SparsePlan):
        assert torch.equal(plan.served, dispatch.sum((2, 3)).long())
        assert_close(plan.load, plan.filled.sum(2).float())


@EVERY_ROUTER
def test_routers_work_in_inference_mode(case: Case) -> None:
    layer, x = layer_of(case).eval(), images()
    y = layer(x)
    with torch.inference_mode():
        assert torch.equal(layer(x), y)


@EVERY_ROUTER
def test_a_model_is_built_on_the_meta_device(case: Case) -> None:
    with torch.device("meta"):
        model = build_backbone("pocket_vit", 10, 32, depth=2)
        sparsify(model, case.router, NUM_EXPERTS, [1], **case.settings)
    real = sparsify(
        build_backbone("pocket_vit", 10, 32, depth=2), case.router, NUM_EXPERTS, [1], **case.settings
    )
    assert all(parameter.is_meta for parameter in model.parameters())
    for made in (model, real):
        take_shape(made, (32, 32))
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in real.named_parameters()
    }
    (layer,) = moe_layers(model).values()
    assert plan_of(layer).num_slots == plan_of(next(iter(moe_layers(real).values()))).num_slots
