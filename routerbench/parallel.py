"""A model over many processes: replicated (DDP), sharded (FSDP2), its experts shared out, or all of these.

The ranks are laid out on a mesh of `data` times `shard` times `expert`, and each trains on images of its own.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from routerbench.draws import WholeDraws
from routerbench.moe.expert_parallel import as_shard, share_experts, shared_experts
from routerbench.moe.layer import MoE
from routerbench.moe.surgery import mlp_blocks, moe_layers
from routerbench.ranks import num_ranks, rank, summed

AXES = ("data", "shard", "expert")


def make_mesh(sizes: Mapping[str, int], device: torch.device) -> DeviceMesh | None:
    """The ranks by the sizes of `AXES`; None for one process alone."""
    if num_ranks() == 1:
        return None
    return init_device_mesh(device.type, tuple(sizes[axis] for axis in AXES), mesh_dim_names=AXES)


def why_not(model: nn.Module) -> str | None:
    """Why ranks cannot share out a batch of this model and find what one process would; None if they can."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            return f"its batch norm {name} would see the images of one process alone"
        if name.endswith("attn_drop") and isinstance(module, nn.Dropout) and module.p:
            return f"the random numbers of {name} are drawn inside a kernel: take attn_drop_rate=0"
    return None


def spread(model: nn.Module, mesh: DeviceMesh | None) -> None:
    """Start all ranks on the weights of the first, and leave each what it holds of them, in place."""
    if mesh is None:
        return
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    for value in state.values():
        dist.broadcast(value, 0)
    model.load_state_dict(state)  # not all are the model's own tensors, as a router's seed
    if mesh["expert"].size() > 1:
        for layer in moe_layers(model).values():
            share_experts(layer.experts, mesh)
            layer.backend = "bmm"
    if mesh["shard"].size() > 1:
        # What has no axis cannot be cut.
        scalars = {parameter for parameter in model.parameters() if parameter.dim() == 0}
        over = mesh["data", "shard"] if mesh["data"].size() > 1 else mesh["shard"]
        for block in (*mlp_blocks(model).values(), model):
            fully_shard(block, mesh=over, ignored_params=scalars)


def network(model: nn.Module, mesh: DeviceMesh | None) -> nn.Module:
    """What images go through in training: the model, and what averages its gradients over the ranks."""
    if mesh is None or isinstance(model, FSDPModule):
        return model
    # Buffers too, for what a rank counts is its own.
    apart = [*shared_experts(model), *(name for name, _ in model.named_buffers())]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, apart)
    return DistributedDataParallel(
        model,
        device_ids=[torch.cuda.current_device()] if mesh.device_type == "cuda" else None,
        init_sync=False,
        gradient_as_bucket_view=True,
    )


def synced(network: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Around a part of a batch: the gradient is averaged over the ranks with that of the `last` part."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(last)
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def whole_draws() -> AbstractContextManager[object]:
    """Around forward and backward: random numbers are those that one process would draw."""
    return nullcontext() if num_ranks() == 1 else WholeDraws(rank(), num_ranks())


def reduce_gradients_apart(model: nn.Module) -> None:
    """Average over all images the gradients that the network leaves: of shared experts, and of scalars."""
    shared = shared_experts(model)
    for name, parameter in model.named_parameters():
        left = name in shared or (isinstance(model, FSDPModule) and not isinstance(parameter, DTensor))
        if left and parameter.grad is not None:
            # The tokens of other ranks that an expert met are in its gradient.
            dist.all_reduce(parameter.grad, group=shared[name].get_group("data") if name in shared else None)
            parameter.grad /= num_ranks()


def gradient_norm(model: nn.Module) -> Tensor:
    """The norm of the gradient of the whole model, on every rank."""
    shared = shared_experts(model)
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    alike = [grad for name, grad in named if name not in shared and not isinstance(grad, DTensor)]
    sharded = [grad for _, grad in named if isinstance(grad, DTensor)]
    of_experts = [grad for name, grad in named if name in shared]
    norm = nn.utils.get_total_norm(alike)
    if sharded:
        of_sharded = nn.utils.get_total_norm(sharded)
        assert isinstance(of_sharded, DTensor)
        norm = torch.hypot(norm, of_sharded.full_tensor())
    if of_experts:
        squares = nn.utils.get_total_norm(of_experts).square()
        dist.all_reduce(squares, group=next(iter(shared.values())).get_group("expert"))
        norm = torch.hypot(norm, squares.sqrt())
    return norm


def clip_gradient(model: nn.Module, most: float, norm: Tensor) -> None:
    """Scale the gradient, of this norm, to at most the norm `most`."""
    for sharded in (False, True):  # one kernel does not take both
        parameters = [p for p in model.parameters() if isinstance(p, DTensor) == sharded]
        nn.utils.clip_grads_with_norm_(parameters, most, norm)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state of the model as in one process, on every rank, on the CPU."""
    state, shared = model.state_dict(), shared_experts(model)
    state |= {name: as_shard(state[name], mesh) for name, mesh in shared.items()}
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).cpu()
        for name, value in state.items()
    }


def sum_counts(layers: Iterable[MoE]) -> None:
    """Make what routers count of the batch since the last step the count of all ranks."""
    for layer in layers:
        for name in layer.router.counts:
            summed(layer.router.get_buffer(name))
