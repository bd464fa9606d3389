"""torch.compile takes the whole sparsified model, in one graph, once; see test_compile."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.build import build_backbone, sparsify
from routerbench.config import conf_dir
from routerbench.moe.surgery import moe_layers

ROUTERS = sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml") if path.stem != "dense")
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


@pytest.mark.parametrize("router", ROUTERS)
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
