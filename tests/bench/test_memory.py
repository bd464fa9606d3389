import os

import pytest
import torch

from routerbench.bench.memory import peak_bytes
from routerbench.timing import Contestant

CPU = torch.device("cpu")


def test_tensors_that_are_held_at_one_time() -> None:
    def step() -> None:
        first = torch.empty(1000)  # 4,000 bytes
        second = torch.empty(500)  # 6,000
        del first
        third = torch.empty(600)  # 4,400
        del second, third

    contestant = Contestant("by hand", step, lambda: None)
    assert [peak_bytes(contestant, CPU) for _ in range(3)] == [6000] * 3


def test_what_stood_before_does_not_count_and_what_stays_does() -> None:
    before, after = torch.empty(10_000), []
    contestant = Contestant("stays", lambda: after.append(before[:250].clone()), after.clear)
    assert [peak_bytes(contestant, CPU) for _ in range(2)] == [1000] * 2
    assert after == []


def test_gradients_of_a_layer() -> None:
    # Forward holds y (8 x 4) alone; backward makes the upstream gradient's products: of x (8 x 2), w and b.
    layer, x, upstream = torch.nn.Linear(2, 4), torch.randn(8, 2, requires_grad=True), torch.randn(8, 4)

    def reset() -> None:
        for tensor in (x, *layer.parameters()):
            tensor.grad = None

    contestant = Contestant("linear", lambda: layer(x).backward(upstream), reset)
    gradients = (8 * 2 + 4 * 2 + 4) * 4
    peak = peak_bytes(contestant, CPU)
    assert peak is not None
    assert gradients <= peak <= gradients + 8 * 4 * 4
    assert x.grad is None


def test_standard_error_is_quiet_while_counting_and_speaks_after(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(Contestant("quiet", lambda: torch.empty(1), lambda: None), CPU)
    assert capfd.readouterr().err == ""
    os.write(2, b"speaks")
    assert capfd.readouterr().err == "speaks"
