"""torch.compile takes the whole sparsified model, in one graph, once; see test_compile."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.build import build_backbone, sparsify
from routerbench.config import conf_dir
from routerbench.moe.surgery import moe_layers
from routerbench.step import DivergedError, TrainingStep

ROUTERS = sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml") if path.stem != "dense")
# One for each way to choose, of which the others are made.
ONE_OF_EACH = ("expert_choice", "sigmoid_bias", "soft", "sparse_token_choice", "token_choice")
SIZE = 16


@pytest.fixture(autouse=True)
def _afresh() -> None:
    torch.compiler.reset()
    torch.manual_seed(0)


class Counted:
    """A compiler that runs what it is given as it is, and counts how often it was asked."""

    def __init__(self) -> None:
        self.num_graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.num_graphs += 1
        return graph.forward


def model_of(router: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build_backbone(
        "vit_tiny_patch16_224", 5, SIZE, patch_size=4, depth=2, embed_dim=16, num_heads=2, img_size=SIZE
    )
    return sparsify(model, router, num_experts=4, placement=[1], **settings)


def gradients(model: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    layers = moe_layers(model).values()
    losses = [loss for layer in layers if layer.routing for loss in layer.routing.losses.values()]
    (logits.square().sum() + sum(losses)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "router",
    [name if name in ONE_OF_EACH else pytest.param(name, marks=pytest.mark.slow) for name in ROUTERS],
)
def test_every_router_compiles_to_one_graph_for_all_batches(router: str) -> None:
    model, compiler = model_of(router), Counted()
    compiled: Any = torch.compile(model, fullgraph=True, backend=compiler)
    for _ in range(3):
        gradients(model, compiled(torch.randn(2, 3, SIZE, SIZE)))
    assert compiler.num_graphs == 1


def test_a_compiled_model_is_the_model() -> None:
    model, twin = (model_of("token_choice", noise_std=0.0, top_k=2) for _ in range(2))
    compiled: Any = torch.compile(model, fullgraph=True, backend="aot_eager")
    images = torch.randn(2, 3, SIZE, SIZE)
    logits, expected = compiled(images), twin(images)
    assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    found = gradients(model, logits)
    for name, gradient in gradients(twin, expected).items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of checkpoint
@pytest.mark.parametrize(
    ("name", "checkpointing"),
    [
        ("pocket_vit", True),
        ("pocket_convnext", False),
        pytest.param("pocket_vit", False, marks=pytest.mark.slow),
        pytest.param("pocket_convnext", True, marks=pytest.mark.slow),
    ],
)
def test_a_step_of_a_model_compiled_in_place_is_that_of_the_model(name: str, checkpointing: bool) -> None:
    size = {"depth": 2, "embed_dim": 16, "num_heads": 2} if name == "pocket_vit" else {"depths": (1, 1, 1, 1)}
    model = build_backbone(name, 5, 32, **size)
    sparsify(model, "sigmoid_bias", num_experts=2, placement=[1], noise_std=0.0)
    twin = copy.deepcopy(model)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    losses, averages = [], []
    for one in (model, twin):
        one.set_grad_checkpointing(checkpointing)  # pyright: ignore[reportCallIssue]
        ema = ModelEmaV3(one, decay=0.5)
        if one is model:
            one.compile(backend="aot_eager")
        step = TrainingStep(
            one.train(),
            list(moe_layers(one).values()),
            torch.optim.SGD(one.parameters(), lr=0.1),
            F.cross_entropy,
            mix=None,
            ema=ema,
            accumulation_steps=2,
            clip_grad=1.0,
            autocast=torch.autocast("cpu", enabled=False),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            device=torch.device("cpu"),
        )
        losses.append([step(images, labels, number).losses["task"] for number in range(3)])
        averages.append(dict(ema.module.state_dict()))
    assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    assert_close(dict(model.state_dict()), dict(twin.state_dict()), rtol=1e-3, atol=1e-4)
    assert_close(averages[0], averages[1], rtol=1e-3, atol=1e-4)


def test_a_compiled_model_that_diverges_names_the_layer() -> None:
    model = model_of("token_choice", noise_std=0.0)
    (layer,) = moe_layers(model).values()
    with torch.no_grad():
        layer.experts.w1.fill_(math.inf)
    model.compile(backend="aot_eager")
    with pytest.raises(DivergedError, match=r": blocks\.1\.mlp \(MoE\) is the first layer"):
        TrainingStep(
            model.train(),
            [layer],
            torch.optim.SGD(model.parameters(), lr=0.1),
            F.cross_entropy,
            mix=None,
            ema=None,
            accumulation_steps=1,
            clip_grad=None,
            autocast=torch.autocast("cpu", enabled=False),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            device=torch.device("cpu"),
        )(torch.randn(2, 3, SIZE, SIZE), torch.tensor([0, 1]), 0)


def test_the_routing_of_a_compiled_model_can_be_read() -> None:
    model = model_of("expert_choice", noise_std=0.0)
    compiled: Any = torch.compile(model, fullgraph=True, backend=Counted())
    first, second = torch.randn(2, 2, 3, SIZE, SIZE)
    (layer,) = moe_layers(model).values()

    def seats(run: Any, images: Tensor) -> list[int]:
        run(images)
        assert layer.routing is not None
        return layer.routing.plan.dense()[0].flatten().tolist()

    assert seats(compiled, first) == seats(model, first)
    assert seats(compiled, second) == seats(model, second) != seats(model, first)
