"""Experts of two routers matched to each other by the tokens that choose them."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from routerbench.moe.layer import MoE
from routerbench.moe.router import Router, Routing
from routerbench.moe.surgery import moe_layers

First = list[Tensor]
"""The expert with the largest gate of every token, batch by batch."""
EXPERT_AXES = {"scorer.weight": 0, "scorer.codes": 0, "bias": 0, "asked": 0, "phi": 1}


def co_occurrence(
    own: Shaped[np.ndarray, "tokens"], other: Shaped[np.ndarray, "tokens"], num_experts: int
) -> Int64[np.ndarray, "E E"]:
    """How many tokens choose each pair of an expert of one's own and another's."""
    pairs = own.astype(np.int64) * num_experts + other
    return np.bincount(pairs, minlength=num_experts**2).reshape(num_experts, num_experts)


def matched(counts: Shaped[np.ndarray, "E E"]) -> Int64[np.ndarray, "E"]:
    """For each expert of one's own that of the other: most tokens agree so (Hungarian assignment)."""
    return linear_sum_assignment(counts, maximize=True)[1].astype(np.int64)


def reordered(router: Router, order: Int64[np.ndarray, "E"]) -> Router:
    """A copy of the router whose expert e is the router's expert order[e]."""
    copied, places = copy.deepcopy(router), torch.from_numpy(order)
    with torch.no_grad():
        for name, values in copied.state_dict().items():
            if name in EXPERT_AXES:  # the state's tensors are the router's own
                values.copy_(values.index_select(EXPERT_AXES[name], places.to(values.device)))
    return copied


@contextmanager
def first_choices(model: nn.Module) -> Iterator[Mapping[str, First]]:
    """Inside, every forward pass notes what tokens choose first in each MoE layer, on the CPU."""
    layers = moe_layers(model)
    found: dict[str, First] = {name: [] for name in layers}

    def note(layer: MoE, _: object, __: object, *, name: str) -> None:
        assert layer.routing is not None
        found[name].append(_first(layer.routing))

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(note, name=name)).remove)
        yield found


@contextmanager
def choices_of(model: nn.Module, others: Mapping[str, Router]) -> Iterator[Mapping[str, First]]:
    """Inside, every forward pass notes what other routers would choose first, of the tokens as they come."""
    layers = moe_layers(model)
    found: dict[str, First] = {name: [] for name in others}

    def note(_: Router, tokens: tuple[Float[Tensor, "G S D"]], __: Routing, *, name: str) -> None:
        found[name].append(_first(others[name](*tokens)))

    with ExitStack() as stack:
        for name in others:
            stack.callback(layers[name].router.register_forward_hook(partial(note, name=name)).remove)
        yield found


def joined(first: First) -> Shaped[np.ndarray, "tokens"]:
    """The first choices of all batches."""
    return torch.cat(first).numpy()


def _first(routing: Routing) -> Int[Tensor, "tokens"]:
    return routing.plan.gates.argmax(-1).flatten().to(torch.int16).cpu()
