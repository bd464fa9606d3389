"""Layers to be timed: the dense twin, ours by backend, those of other packages, and a plain GEMM."""

import os
from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from routerbench.bench.cases import CAPACITY_FACTOR, LayerCase, RouterCase, Shape
from routerbench.bench.peers import Peer, output_of
from routerbench.build import build_router
from routerbench.moe.experts import Experts
from routerbench.moe.layer import MoE
from routerbench.moe.plan import SoftPlan, SparsePlan
from routerbench.moe.router import Router
from routerbench.moe.surgery import moe_layers
from routerbench.step import router_losses
from routerbench.timing import Contestant

# Contestants by name, each made when its turn comes; ValueError says why one cannot be.
Makers = dict[str, Callable[[], Contestant]]

DENSE, GEMM, ONE_HOT = "dense", "GEMM", "one_hot"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Of an entry of the one-hot plan: as integers, twice, and as weights of dispatch and combine.
_ONE_HOT_BYTES = 8 + 8 + 4 + 4


def autocast_to(precision: str, device: torch.device) -> torch.autocast:
    """Autocast on the device; off for fp32."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


def layer_makers(
    case: LayerCase, backends: Sequence[str], peers: Sequence[Peer], device: torch.device
) -> Makers:
    """Contestants of a layer case, which all get the same tokens and the same gradient of the output."""
    shape = case.shape
    tokens = _tokens(shape, device)
    upstream = torch.randn_like(tokens)
    autocast = autocast_to(shape.precision, device)

    def contestant(name: str, layer: nn.Module, backend: str | None = None) -> Contestant:
        return _forward_backward(name, layer, tokens, upstream, autocast, backend)

    def ours(backend: str) -> Contestant:
        layer = moe_layer(case, backend, device)
        with torch.no_grad():  # gives every parameter its shape, too
            plan = layer.router(tokens.view(-1, _tokens_per_group(case), shape.width)).plan
        if backend == ONE_HOT:
            _check_fits(plan.gates.numel() * plan.num_slots * _ONE_HOT_BYTES, device)
        return contestant(backend, layer, backend)

    def theirs(peer: Peer) -> Contestant:
        return contestant(peer.name, peer.layer(shape, device))

    makers: Makers = {DENSE: lambda: contestant(DENSE, _dense(shape, device))}
    makers |= {backend: lambda backend=backend: ours(backend) for backend in backends}
    makers |= {peer.name: lambda peer=peer: theirs(peer) for peer in peers}
    if case.kind == "layer":
        makers[GEMM] = lambda: _gemm(shape, device)
    return makers


def router_makers(case: RouterCase, device: torch.device) -> Makers:
    """The dense layer, and every router of the case alone on the same tokens."""
    shape = case.shape
    tokens = _tokens(shape, device)
    upstream = torch.randn_like(tokens)
    autocast = autocast_to(shape.precision, device)
    groups = tokens.detach().view(-1, _tokens_per_group(case), shape.width).requires_grad_()

    def router(name: str) -> Contestant:
        built = build_router(name, shape.width, shape.num_experts).to(device)
        with torch.no_grad():
            built(groups)  # gives every parameter its shape
        return _routing(name, built, groups)

    dense: Makers = {
        DENSE: lambda: _forward_backward(DENSE, _dense(shape, device), tokens, upstream, autocast)
    }
    return dense | {name: lambda name=name: router(name) for name in case.routers}


def moe_layer(case: LayerCase, backend: str, device: torch.device) -> MoE:
    """Our layer; raises ValueError where the router or the backend cannot be had in this case."""
    shape = case.shape
    router = build_router(case.router, shape.width, shape.num_experts, capacity_factor=CAPACITY_FACTOR)
    experts = Experts(shape.num_experts, shape.width, shape.hidden)
    group = shape.num_images if case.group == "batch" else "image"
    return MoE(router, experts, group, backend=backend).to(device)


def expert_gradient_bytes(shape: Shape) -> int:
    """Bytes of the gradients of all experts."""
    weights = 2 * shape.width * shape.hidden + shape.hidden + shape.width
    return shape.num_experts * weights * torch.float32.itemsize


def _tokens(shape: Shape, device: torch.device) -> Float[Tensor, "B S D"]:
    tokens = torch.randn(shape.num_images, shape.tokens // shape.num_images, shape.width, device=device)
    return tokens.requires_grad_()


def _tokens_per_group(case: LayerCase | RouterCase) -> int:
    shape = case.shape
    return shape.tokens if case.group == "batch" else shape.tokens // shape.num_images


def _dense(shape: Shape, device: torch.device) -> nn.Module:
    return Mlp(shape.width, shape.hidden).to(device)


def _forward_backward(
    name: str,
    layer: nn.Module,
    tokens: Float[Tensor, "B S D"],
    upstream: Float[Tensor, "B S D"],
    autocast: torch.autocast,
    backend: str | None = None,
) -> Contestant:
    """Forward and backward to the tokens and all parameters, of the output and the routers' losses."""
    upstream_as = cache(upstream.to)  # of the output's precision, cast before it is timed

    def step() -> None:
        with autocast:
            output = output_of(layer(tokens))
        assert isinstance(output, Tensor)
        _backward(
            [output], [upstream_as(output.dtype)], list(router_losses(moe_layers(layer).values()).values())
        )

    def reset() -> None:
        _reset([tokens, *layer.parameters()])
        for moe in moe_layers(layer).values():
            moe.routing = None  # it holds the step's graph

    return Contestant(name, step, reset, backend)


def _routing(name: str, router: Router, groups: Float[Tensor, "G S D"]) -> Contestant:
    """Forward and backward to the tokens and all parameters, of the plan's weights and the losses."""
    upstream_as = cache(lambda shape: torch.randn(shape, device=groups.device))

    def step() -> None:
        routing = router(groups)
        plan = routing.plan
        if isinstance(plan, SoftPlan):
            weights = [plan.dispatch_weight, plan.combine_weight]
        else:
            assert isinstance(plan, SparsePlan)
            weights = [plan.weight]
        _backward(weights, [upstream_as(weight.shape) for weight in weights], list(routing.losses.values()))

    return Contestant(name, step, lambda: _reset([groups, *router.parameters()]))


def _backward(outputs: Sequence[Tensor], upstream: Sequence[Tensor], losses: Sequence[Tensor]) -> None:
    """What of it is constant, as the weights of some controls, has no backward pass."""
    pairs = [*zip(outputs, upstream, strict=True), *((loss, torch.ones_like(loss)) for loss in losses)]
    pairs = [(output, gradient) for output, gradient in pairs if output.requires_grad]
    if pairs:
        torch.autograd.backward(*map(list, zip(*pairs, strict=True)))


def _reset(tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        tensor.grad = None
    # To what keeps casts of the weights, this is a step of the optimizer: they must be made again.
    torch.autograd.graph.increment_version([tensor for tensor in tensors if isinstance(tensor, nn.Parameter)])


def _gemm(shape: Shape, device: torch.device) -> Contestant:
    """The largest plain product of the dense layer, in the precision of the case: what the device can do."""
    dtype = DTYPES[shape.precision]
    left = torch.randn(shape.tokens, shape.width, device=device, dtype=dtype)
    right = torch.randn(shape.width, shape.hidden, device=device, dtype=dtype)
    return Contestant(GEMM, lambda: left @ right, lambda: None)


def _check_fits(num_bytes: int, device: torch.device) -> None:
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > there / 2:
        raise ValueError(
            f"its plan takes {num_bytes / 2**30:.1f} GiB, more than half of the {there / 2**30:.1f} there are"
        )
