"""What the processes of a run say to each other. One process alone is a group of one: nothing is sent."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def rank() -> int:
    """The number of this process among those of the run."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_ranks() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(timeout_seconds: float, device: str) -> Iterator[None]:
    """Inside, the processes that `torchrun` started are one group; on GPUs, if `device` says so, one on each.

    Raises ValueError, on all of them, where one has no GPU. What one of them waits for longer than the
    timeout is an error. After an error nothing is taken down in order, for that could wait for a process that
    is dead.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpus = device in ("auto", "cuda") and torch.cuda.is_available()
    # Where there is a GPU, torch by itself takes NCCL alone, which does not send what is on the CPU.
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    if on_gpus:
        checked_by_all(lambda: _take_own_gpu(device))
    yield
    dist.destroy_process_group()


def _take_own_gpu(device: str) -> None:
    local_rank, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= num_gpus:
        raise ValueError(
            f"runtime.device={device} is a GPU of its own for each process, of which LOCAL_RANK={local_rank} "
            f"sees {num_gpus}: start no more processes than a machine has GPUs, or take cpu"
        )
    torch.cuda.set_device(local_rank)


def agreed(decide: Callable[[], Value]) -> Value:
    """What the first rank decides, or the error that it raises, on all ranks."""
    if num_ranks() == 1:
        return decide()
    said: list[Any] = [None, None]
    if rank() == 0:
        try:
            said[0] = decide()
        except Exception as error:
            said[1] = error
    dist.broadcast_object_list(said)
    value, error = said
    if error is not None:
        raise error
    return value


def checked_by_all(check: Callable[[], Value]) -> Value:
    """What each rank finds; where one raises ValueError, all raise that of the first."""
    value, refusal = None, None
    try:
        value = check()
    except ValueError as error:
        refusal = error
    for found in gathered(refusal):
        if found is not None:
            raise found
    return value  # pyright: ignore[reportReturnType]


def gathered(value: Value) -> list[Value]:
    """The values of all ranks, on all ranks, their tensors each on the device of the rank that reads them."""
    if num_ranks() == 1:
        return [value]
    packed = io.BytesIO()
    torch.save(value, packed)
    of_ranks: list[Any] = [None] * num_ranks()
    dist.all_gather_object(of_ranks, packed.getvalue())
    # It comes from this very program.
    return [torch.load(io.BytesIO(of_rank), _here, weights_only=False) for of_rank in of_ranks]


def added(totals: dict[str, Any]) -> dict[str, Any]:
    """Totals by name, added up over the ranks in their order; a rank may have none."""
    whole: dict[str, Any] = {}
    for of_rank in gathered(totals):
        for name, total in of_rank.items():
            whole[name] = whole[name] + total if name in whole else total
    return whole


def any_rank(flag: bool) -> bool:
    """Whether the flag is up on any rank."""
    if num_ranks() == 1:
        return flag
    up = torch.tensor(int(flag))
    dist.all_reduce(up, dist.ReduceOp.MAX)
    return bool(up.item())


def summed(tensor: Tensor) -> Tensor:
    """The sum over ranks, in place."""
    if num_ranks() > 1:
        dist.all_reduce(tensor)
    return tensor


def means(scalars: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each scalar over ranks."""
    if num_ranks() == 1:
        return scalars
    stacked = summed(torch.stack([scalar.detach() for scalar in scalars.values()])) / num_ranks()
    return dict(zip(scalars, stacked.unbind(), strict=True))


def _here(storage: Any, location: str) -> Any:
    return storage if location == "cpu" else storage.cuda()  # the GPU of this rank
