"""What the contestants of a case are given, and what becomes of those that cannot take part."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from routerbench.bench import layers
from routerbench.bench.cases import LayerCase, MemoryCase, ModelCase, RouterCase, Shape
from routerbench.bench.layers import layer_makers, router_makers
from routerbench.bench.measure import measure
from routerbench.bench.models import model_makers
from routerbench.bench.peers import Peer
from routerbench.build import router_names
from routerbench.moe.backends import BACKENDS
from routerbench.timing import Step

CPU = torch.device("cpu")
SHAPE = Shape("ti", 392, 2, "fp32")
# Two products forward, four backward, each of 392 x 192 x 768 multiply-adds.
DENSE_FLOPS = 6 * 2 * 392 * 192 * 768


class Spy(nn.Module):
    """A layer that keeps what it is given, and the gradient that comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []
        self.upstream: list[Tensor] = []

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        self.seen.append(x)
        y = x * self.scale
        y.register_hook(self.upstream.append)
        return y, "what comes behind the tokens is left alone"


def one_second(step: Step) -> float:
    step()
    return 1.0


def not_timed(step: Step) -> float:
    raise AssertionError("it was timed")


def peer(name: str, layer: nn.Module) -> Peer:
    return Peer(name, lambda **_: layer)


def measured(case: LayerCase | RouterCase, **makers: Any) -> dict[str, dict[str, Any]]:
    if isinstance(case, LayerCase):
        makers = makers or layer_makers(case, ("bmm",), (), CPU)
    found = measure(case, makers, CPU, one_second, 2)
    return {record["name"]: record for record in found["contestants"]}


def test_all_get_the_same_tokens_and_the_same_gradient() -> None:
    spies = [Spy(), Spy()]
    peers = [peer("one:spy", spies[0]), peer("two:spy", spies[1])]
    case = LayerCase(SHAPE, "token_choice", "batch")
    records = measured(case, **layer_makers(case, ("bmm",), peers, CPU))
    assert records["one:spy"]["seconds"] == records["dense"]["seconds"] == [1.0, 1.0]
    (tokens,) = {id(x): x for spy in spies for x in spy.seen}.values()
    assert tokens.shape == (2, 196, 192)
    assert tokens.requires_grad
    (first, *others) = [gradient for spy in spies for gradient in spy.upstream]
    assert first.std() == pytest.approx(1, abs=0.1)
    assert all(torch.equal(first, other) for other in others)


def test_a_step_goes_back_to_tokens_and_parameters_and_a_reset_forgets_it() -> None:
    spy = Spy()
    contestant = layer_makers(LayerCase(SHAPE, "soft", "image"), (), [peer("a:spy", spy)], CPU)["a:spy"]()
    contestant.step()
    assert spy.scale.grad is not None
    assert spy.seen[0].grad is not None
    version = spy.scale._version
    contestant.reset()
    assert (spy.scale.grad, spy.seen[0].grad) == (None, None)
    assert spy.scale._version > version  # as after a step of the optimizer


def test_records_of_a_layer() -> None:
    records = measured(LayerCase(SHAPE, "token_choice", "batch"))
    assert list(records) == ["dense", "bmm", "GEMM"]
    assert records["dense"]["flops"] == DENSE_FLOPS
    assert records["GEMM"]["flops"] == DENSE_FLOPS / 6
    # As many slots as tokens; the gate's product, of weights, and twice backward.
    assert records["bmm"]["flops"] == DENSE_FLOPS + 3 * 2 * 392 * 192 * 2
    assert [record["backend"] for record in records.values()] == [None, "bmm", None]
    for record in records.values():
        assert record["peak_bytes"] > 0
        assert record["seconds"] == [1.0, 1.0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_backend_takes_part(precision: str) -> None:
    case = LayerCase(Shape("ti", 196, 2, precision), "token_choice", "batch")
    records = measured(case, **layer_makers(case, tuple(BACKENDS), (), CPU))
    assert all("seconds" in records[name] for name in BACKENDS), records


def test_a_memory_case_is_not_timed() -> None:
    case = MemoryCase(SHAPE, "token_choice", "batch")
    found = measure(case, layer_makers(case, ("bmm",), (), CPU), CPU, not_timed, 2)
    assert [sorted(record) for record in found["contestants"]] == [
        ["backend", "flops", "name", "peak_bytes"],
        ["backend", "flops", "name", "peak_bytes"],
    ]
    assert found["expert_gradient_bytes"] == 2 * 4 * (2 * 192 * 768 + 192 + 768)


def test_the_same_peak_every_time() -> None:
    case = MemoryCase(SHAPE, "token_choice", "batch")
    first, second = ([record["peak_bytes"] for record in measured(case).values()] for _ in range(2))
    assert first == second


def test_who_is_refused_or_fails_says_why_and_the_others_go_on() -> None:
    def refuses(**_: Any) -> nn.Module:
        raise ValueError("not with a norm")

    class Breaks(nn.Identity):
        def forward(self, input: Tensor) -> Tensor:
            raise RuntimeError("boom\nand its trace")

    class Later(Spy):
        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            if len(self.seen) > 4:
                raise RuntimeError("later")
            return super().forward(x)

    peers = [Peer("a:refuses", refuses), peer("a:breaks", Breaks()), peer("a:later", Later())]
    peers.append(peer("a:spy", Spy()))
    case = LayerCase(SHAPE, "token_choice", "batch")
    records = measured(case, **layer_makers(case, (), peers, CPU))
    shape = "ti 392 tokens E2 fp32"
    assert records["a:refuses"] == {
        "name": "a:refuses",
        "refused": f"peer=a:refuses cannot be made for {shape}: ValueError: not with a norm",
    }
    assert records["a:breaks"] == {"name": "a:breaks", "backend": None, "failed": "RuntimeError: boom"}
    assert records["a:later"]["failed"] == "RuntimeError: later"
    assert "seconds" not in records["a:later"]
    assert records["a:spy"]["seconds"] == [1.0, 1.0]


def test_the_definition_is_refused_where_its_plan_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine of 4 MiB; the plan has 392 x 392 entries of 24 bytes, which is 3.5 MiB.
    monkeypatch.setattr(layers.os, "sysconf", {"SC_PHYS_PAGES": 1024, "SC_PAGE_SIZE": 4096}.__getitem__)
    case = LayerCase(SHAPE, "token_choice", "batch")
    with pytest.raises(ValueError, match=r"^its plan takes 0\.0 GiB, more than half of the 0\.0 there are$"):
        layer_makers(case, ("one_hot",), (), CPU)["one_hot"]()


def test_every_router_alone() -> None:
    case = RouterCase(Shape("ti", 196, 2, "fp32"), tuple(router_names()), "image")
    records = measured(case, **router_makers(case, CPU))
    assert list(records) == ["dense", *router_names()]
    assert all(record["seconds"] == [1.0, 1.0] for record in records.values())


def test_a_model_by_placement() -> None:
    case = ModelCase("pocket_vit", 32, 2, 2, "bf16", "token_choice", "image", ("last_2", "every_2"))
    found = measure(case, model_makers(case, None, CPU), CPU, one_second, 2)
    records = {record["name"]: record for record in found["contestants"]}
    assert list(records) == ["dense", "last_2", "every_2"]
    assert records["dense"]["backend"] is None
    assert all(record["backend"] in BACKENDS for record in records.values() if record["name"] != "dense")
    assert records["dense"]["flops"] < records["last_2"]["flops"] < records["every_2"]["flops"]
    named = model_makers(case, ("bmm", "one_hot"), CPU)
    assert list(named) == ["dense", *(f"{p} {b}" for p in case.placements for b in ("bmm", "one_hot"))]
    assert named["last_2 one_hot"]().backend == "one_hot"
