"""How processes become a group: what can be sent, and whose GPU is which."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from routerbench import ranks
from routerbench.ranks import joined


class Machine:
    """The second of two processes, on a machine with some GPUs; nothing is really started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_gpus: int) -> None:
        self.backends: list[str] = []
        self.taken: list[int] = []
        for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(torch.cuda, "set_device", self.taken.append)
        monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: self.backends.append(backend))
        monkeypatch.setattr(dist, "destroy_process_group", lambda: None)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_processes_on_gpus_can_send_what_is_on_the_host_too(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, num_gpus=2)
    with joined(60.0, device):
        assert machine.taken == [1]
    assert machine.backends == ["cpu:gloo,cuda:nccl"]


@pytest.mark.parametrize(("device", "num_gpus"), [("cpu", 2), ("cpu", 1), ("auto", 0), ("cuda", 0)])
def test_processes_on_the_cpu_touch_no_gpu(
    device: str, num_gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, num_gpus)
    with joined(60.0, device):
        assert machine.taken == []
    assert machine.backends == ["gloo"]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_fewer_gpus_than_processes_are_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, num_gpus=1)
    with pytest.raises(ValueError, match=r"^runtime\.device=") as refused, joined(60.0, device):
        pass
    assert str(refused.value) == (
        f"runtime.device={device} is a GPU of its own for each process, of which LOCAL_RANK=1 sees 1: "
        "start no more processes than a machine has GPUs, or take cpu"
    )
    assert machine.taken == []


def test_sums_and_means_are_over_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    # The other rank holds the double of what this one does.
    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.mul_(3))
    assert ranks.summed(torch.tensor([1.0, 2.0])).tolist() == [3.0, 6.0]
    found = ranks.means({"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(4.0)})
    assert {name: value.item() for name, value in found.items()} == {"a": 3.0, "b": 6.0}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_group_on_a_gpu_sends_what_is_on_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    start = dist.init_process_group

    def alone(backend: str, **_: Any) -> None:
        start(backend, store=dist.HashStore(), rank=0, world_size=1)

    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", alone)
    with joined(60.0, "cuda"):
        monkeypatch.setattr(ranks, "num_ranks", lambda: 2)  # as if there were another: nothing is left out
        assert ranks.any_rank(True)
        assert ranks.agreed(lambda: "decided") == "decided"
        for device in ("cpu", "cuda"):
            assert ranks.summed(torch.tensor([3.0], device=device)).tolist() == [3.0]
