"""Random numbers of a batch that is shared out over ranks: those of one process."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

LIKE = (torch.rand_like, torch.randn_like)
IN_PLACE = (Tensor.bernoulli_, Tensor.normal_, Tensor.uniform_, Tensor.exponential_)


class WholeDraws(TorchFunctionMode):
    """Inside, each rank draws what one process would for the images of all ranks, and keeps its own rows.

    So noise of routers, drop path and dropout do not hang on the number of ranks, and the generators of all
    ranks stay alike. The first axis is taken for that of the images; for dropout inside experts it is that of
    the experts, whose draws then differ from one process's.
    """

    def __init__(self, rank: int, num_ranks: int) -> None:
        super().__init__()
        self.rank = rank
        self.num_ranks = num_ranks

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func is Tensor.backward:  # in which checkpointed activations draw again
            with self:  # given a tensor, it would leave this mode once more
                return torch.autograd.backward(get_gradient_edge(args[0]), kwargs.pop("gradient"), **kwargs)
        draws = func in LIKE or func in IN_PLACE or func is F.dropout
        if not draws or args[0].dim() == 0 or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        own = args[0]
        whole = self._whole(own)
        if func in LIKE:
            return self._rows(func(whole, *args[1:], **kwargs))
        if func in IN_PLACE:
            return own.copy_(self._rows(func(whole, *args[1:], **kwargs)))
        return own * self._rows(func(whole.fill_(1), *args[1:], **{**kwargs, "inplace": False}))

    def _whole(self, own: Tensor) -> Tensor:
        """Room for the rows of all ranks, which lie in memory as those of this one."""
        order = sorted(range(own.dim()), key=own.stride, reverse=True)
        sizes = (len(own) * self.num_ranks, *own.shape[1:])
        return torch.empty_permuted(sizes, order, dtype=own.dtype, device=own.device)

    def _rows(self, whole: Tensor) -> Tensor:
        return whole.tensor_split(self.num_ranks)[self.rank]
