"""Every backend computes the same layer, gradients included."""

import re
from collections import Counter
from typing import Any

import pytest
import torch
from timm.layers import GluMlp, Mlp, SwiGLU
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from routerbench.build import build_router
from routerbench.moe.backends import BACKENDS, check_backend, default_backend
from routerbench.moe.expert_loop import ExpertLoop
from routerbench.moe.experts import Experts
from routerbench.moe.layer import MoE

WIDTH, HIDDEN, NUM_EXPERTS, NUM_TOKENS = 8, 16, 4, 12
CPU = torch.device("cpu")
ROUTERS: list[tuple[str, dict[str, Any]]] = [
    ("token_choice", {"capacity_factor": 0.5}),
    ("token_choice", {"top_k": 2, "capacity_factor": 1.0}),
    ("token_choice", {"top_k": 2, "capacity_factor": 4.0}),  # most slots are empty
    ("token_choice", {"top_k": 1, "capacity": NUM_TOKENS}),
    ("expert_choice", {"capacity_factor": 2.0}),
    ("hash", {}),
    ("soft", {}),
]
EVERY_ROUTER = pytest.mark.parametrize(("router", "settings"), ROUTERS)
FAST = [name for name in BACKENDS if name != "one_hot"]


def layer_of(router: str, settings: dict[str, Any], backend: str = "bmm", **experts: Any) -> MoE:
    torch.manual_seed(0)
    layer = MoE(
        build_router(router, WIDTH, NUM_EXPERTS, **settings),
        Experts(NUM_EXPERTS, WIDTH, HIDDEN, **experts),
        backend=backend,
    )
    if router == "soft":
        layer.router(torch.randn(1, NUM_TOKENS, WIDTH))  # gives phi its shape
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def computed(layer: MoE, x: Tensor, autocast: bool = False) -> dict[str, Tensor]:
    """The output, and every gradient of a sum weighted at random."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # the routers' noise
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype)
    (y * weights).sum().backward()
    found = {"y": y.detach(), "x": x.grad}
    found |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {name: value for name, value in found.items() if value is not None}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float, atol: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert_close(one[name], other[name], rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("backend", FAST)
@EVERY_ROUTER
def test_backends_are_the_definition(router: str, settings: dict[str, Any], backend: str) -> None:
    x = torch.randn(3, NUM_TOKENS, WIDTH)
    layer = layer_of(router, settings, "one_hot")
    expected = computed(layer, x)
    assert_same(computed(layer_of(router, settings, backend), x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["bmm", "loop"])
def test_backends_agree_to_the_last_digits_in_double_precision(backend: str) -> None:
    x = torch.randn(3, NUM_TOKENS, WIDTH, dtype=torch.float64)
    settings = {"top_k": 2, "capacity_factor": 1.0}
    expected = computed(layer_of("token_choice", settings, "one_hot").double(), x)
    found = computed(layer_of("token_choice", settings, backend).double(), x)
    assert_same(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", FAST)
@EVERY_ROUTER
def test_backends_agree_under_autocast(router: str, settings: dict[str, Any], backend: str) -> None:
    x = torch.randn(3, NUM_TOKENS, WIDTH)
    expected = computed(layer_of(router, settings, "one_hot"), x)
    found = computed(layer_of(router, settings, backend), x, autocast=True)
    assert_same(found, expected, rtol=0.05, atol=0.1)
    assert all(value.dtype == torch.float32 for value in found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", FAST)
def test_backends_take_models_in_low_precision(backend: str, dtype: torch.dtype) -> None:
    x = torch.randn(3, NUM_TOKENS, WIDTH)
    expected = computed(layer_of("expert_choice", {}, "one_hot"), x)
    found = computed(layer_of("expert_choice", {}, backend).to(dtype), x.to(dtype))
    assert found["y"].dtype == found["x"].dtype == dtype
    assert_close(found["y"].float(), expected["y"], rtol=0.05, atol=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_repeat_to_the_bit(backend: str) -> None:
    x = torch.randn(3, NUM_TOKENS, WIDTH)
    layers = [layer_of("token_choice", {"top_k": 2, "capacity_factor": 1.0}, backend) for _ in range(2)]
    assert_same(computed(layers[0], x), computed(layers[1], x), rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["bmm", "grouped"])
@pytest.mark.parametrize(
    "mlp",
    [GluMlp(WIDTH, 2 * HIDDEN), SwiGLU(WIDTH, HIDDEN), Mlp(WIDTH, HIDDEN, bias=False), Mlp(WIDTH, HIDDEN)],
    ids=["glu", "swiglu", "no bias", "mlp"],
)
def test_backends_take_the_experts_of_timm(mlp: nn.Module, backend: str) -> None:
    x = torch.randn(3, NUM_TOKENS, WIDTH)

    def layer(backend: str) -> MoE:
        torch.manual_seed(0)
        router = build_router("expert_choice", WIDTH, NUM_EXPERTS)
        return MoE(router, Experts.from_dense(mlp, NUM_EXPERTS, expert_init="independent"), backend=backend)

    assert_same(computed(layer(backend), x), computed(layer("one_hot"), x), rtol=1e-4, atol=1e-5)


def test_an_expert_without_tokens_gets_no_gradient_in_every_backend() -> None:
    # Every token goes to expert 2.
    for backend in FAST:
        layer = layer_of("token_choice", {"noise_std": 0.0, "capacity": NUM_TOKENS}, backend)
        with torch.no_grad():
            layer.router.get_parameter("scorer.weight").zero_()[2] = 1.0
        gradients = computed(layer, torch.rand(2, NUM_TOKENS, WIDTH))
        for name in ("w1", "b1", "w2", "b2"):
            of_experts = gradients[f"experts.{name}"].flatten(1).abs().sum(1)
            assert (of_experts > 0).tolist() == [False, False, True, False]


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("biases", [True, False])
def test_the_gradients_of_the_loop_are_those_of_differences(approximate: str, biases: bool) -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    b1, b2 = (draw(3, 5), draw(3, 4)) if biases else (None, None)
    # The second expert has no rows, row 0 two experts, and row 5 none.
    index = torch.tensor([0, 1, 0, 2, 3, 4])
    arguments: Any = (draw(6, 4), draw(6), index, [2, 0, 4], torch.float64, approximate)
    arguments += (draw(3, 4, 5), b1, draw(3, 5, 4), b2)
    assert torch.autograd.gradcheck(ExpertLoop.apply, arguments)


class Rows(TorchDispatchMode):
    """Counts the rows that go into products."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm", "baddbmm", "_grouped_mm"):
            left = args[1] if name in ("addmm", "baddbmm") else args[0]
            if left.shape[-1] in (WIDTH, HIDDEN):
                self.count[name] += left.shape[:-1].numel()
        return func(*args, **(kwargs or {}))


def test_loop_and_grouped_compute_filled_slots_alone() -> None:
    # One choice of twelve tokens, in four experts with room for all twelve: 48 slots of which 12 are filled.
    x = torch.randn(1, NUM_TOKENS, WIDTH)
    counts = {}
    for backend in FAST:
        layer = layer_of("hash", {"capacity": NUM_TOKENS}, backend)
        with torch.no_grad(), Rows() as rows:
            layer(x)
        counts[backend] = sum(rows.count.values())
    # Two products in each.
    assert counts == {"bmm": 2 * 48, "loop": 2 * 12, "grouped": 2 * 12}


def test_the_loop_keeps_no_activations() -> None:
    layer = layer_of("expert_choice", {}, "loop")
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(1, NUM_TOKENS, WIDTH))
    assert sum(shape == (NUM_TOKENS, HIDDEN) for shape in kept) == 1


@pytest.mark.parametrize("backend", ["bmm", "loop"])
def test_frozen_experts_get_no_gradient(backend: str) -> None:
    x = torch.randn(2, NUM_TOKENS, WIDTH)
    layer, whole = (layer_of("expert_choice", {}, backend) for _ in range(2))
    layer.experts.w1.requires_grad_(False)
    layer.experts.b2.requires_grad_(False)
    found, expected = computed(layer, x), computed(whole, x)
    assert expected.keys() - found.keys() == {"experts.w1", "experts.b2"}
    assert_same(found, {name: expected[name] for name in found}, rtol=0, atol=0)


def test_no_backend_lets_a_dropped_token_into_an_expert() -> None:
    # All tokens want expert 0, which has one slot, and token 0, whose hidden features overflow, the least.
    for backend in FAST:
        layer = layer_of("token_choice", {"noise_std": 0.0, "capacity": 1, "batch_priority": True}, backend)
        with torch.no_grad():
            layer.router.get_parameter("scorer.weight").zero_()[0, 1] = 1.0
            layer.experts.w1.mul_(100)
        x = torch.ones(1, NUM_TOKENS, WIDTH)
        x[0, 0, 0], x[0, 0, 1] = 3e38, 0.5
        gradients = computed(layer, x)
        assert all(gradients[f"experts.{name}"].isfinite().all() for name in ("w1", "b1", "w2", "b2")), (
            backend
        )


def test_autocast_leaves_double_precision_alone() -> None:
    x = torch.randn(1, NUM_TOKENS, WIDTH, dtype=torch.float64)
    found = [layer_of("hash", {}, backend).double() for backend in ("loop", "bmm")]
    with torch.autocast("cpu", torch.bfloat16):
        loop, bmm = (layer(x) for layer in found)
    assert_close(loop, bmm, rtol=1e-12, atol=1e-12)


def on_meta(layer: MoE) -> Tensor:
    """The layer where no value can be looked at, as a look would make a GPU's host wait."""
    return layer.to("meta")(torch.empty(2, NUM_TOKENS, WIDTH, device="meta"))


@pytest.mark.parametrize("backend", ["bmm", "one_hot"])
@EVERY_ROUTER
def test_a_forward_pass_looks_at_no_value(router: str, settings: dict[str, Any], backend: str) -> None:
    assert on_meta(layer_of(router, settings, backend)).shape == (2, NUM_TOKENS, WIDTH)


@EVERY_ROUTER
def test_grouped_looks_at_no_value(router: str, settings: dict[str, Any]) -> None:
    # On the meta device, grouped products are known in bfloat16 alone, as on most GPUs.
    layer = layer_of(router, settings, "grouped").to(torch.bfloat16).to("meta")
    x = torch.empty(2, NUM_TOKENS, WIDTH, device="meta", dtype=torch.bfloat16)
    assert layer(x).shape == x.shape


def test_the_backend_where_none_is_named() -> None:
    plain, gated = Experts(2, WIDTH, HIDDEN), Experts.from_dense(SwiGLU(WIDTH, HIDDEN), 2)
    assert default_backend(plain, CPU) == "loop"
    assert default_backend(gated, CPU) == "bmm"
    assert default_backend(plain, torch.device("meta")) == "bmm"
    assert default_backend(plain, torch.device("cuda")) == "bmm"
    with torch.autocast("cpu", torch.bfloat16):
        assert default_backend(plain, CPU) == "bmm"


def normed() -> Experts:
    mlp = Mlp(WIDTH, HIDDEN, norm_layer=nn.LayerNorm)
    return Experts.from_dense(mlp, 2)


@pytest.mark.parametrize(
    ("backend", "experts", "device", "message"),
    [
        (
            "lop",
            Experts(2, WIDTH, HIDDEN),
            "cpu",
            "backend=lop is not one of: bmm, loop, grouped, one_hot (did you mean loop?)",
        ),
        (
            "loop",
            Experts(2, WIDTH, HIDDEN, act_layer=nn.ReLU),
            "cpu",
            "backend=loop knows no activation but GELU, and these experts have ReLU: take backend=bmm",
        ),
        (
            "loop",
            Experts.from_dense(SwiGLU(WIDTH, HIDDEN, act_layer=nn.GELU), 2),
            "cpu",
            "backend=loop knows no gated experts: take backend=bmm",
        ),
        (
            "loop",
            Experts(2, WIDTH, HIDDEN, dropout=0.1),
            "cpu",
            "backend=loop knows no dropout in experts: take backend=bmm",
        ),
        (
            "loop",
            Experts(2, WIDTH, HIDDEN),
            "cuda",
            "backend=loop is for CPUs, and this is cuda: take backend=bmm",
        ),
        (
            "loop",
            normed(),
            "cpu",
            "backend=loop knows no norm between the layers of experts, and these have SlotNorm: "
            "take backend=bmm",
        ),
        (
            "grouped",
            normed(),
            "cpu",
            "backend=grouped knows no norm between the layers of experts, and these have SlotNorm: "
            "take backend=bmm",
        ),
        (
            "grouped",
            Experts(2, WIDTH, HIDDEN).double(),
            "cpu",
            "backend=grouped knows no double precision: take backend=bmm",
        ),
        (
            "grouped",
            Experts(2, WIDTH, 12),
            "cpu",
            "backend=grouped takes multiples of 8 for widths, and these experts have 8 and 12: "
            "take backend=bmm",
        ),
    ],
)
def test_backends_that_cannot_be(backend: str, experts: Experts, device: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_backend(backend, experts, torch.device(device))


def test_a_layer_checks_its_backend() -> None:
    router = build_router("hash", WIDTH, 2)
    with pytest.raises(ValueError, match=r"^backend=fast is not one of"):
        MoE(router, Experts(2, WIDTH, HIDDEN), backend="fast")
