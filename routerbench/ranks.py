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
def joined(timeout_seconds: float) -> Iterator[None]:
    """Inside, the processes that `torchrun` started are one group, each with a GPU of its own if it has GPUs.

    What one of them waits for longer than the timeout is an error. After an error nothing is taken down in
    order, for that could wait for a process that is dead.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(timeout=timedelta(seconds=timeout_seconds))
    yield
    dist.destroy_process_group()


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
