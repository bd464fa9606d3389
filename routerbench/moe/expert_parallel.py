"""Expert parallelism: each rank holds a share of the experts, to which slots travel, and back."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from routerbench.moe.backends import product_dtype
from routerbench.moe.experts import Experts


def share_experts(experts: Experts, mesh: DeviceMesh) -> None:
    """Leave this rank its share of the experts, in place; `mesh` has an axis `expert`, whose size divides E.

    Parameters keep their names. A forward pass takes and gives the slots of all E experts, and every rank has
    to take part in it with as many slots.
    """
    group, num_ranks = mesh.get_group("expert"), mesh["expert"].size()
    assert experts.num_experts % num_ranks == 0
    for name, parameter in list(experts.named_parameters()):
        module, _, last = name.rpartition(".")
        share = parameter.detach().chunk(num_ranks)[mesh.get_local_rank("expert")].clone()
        setattr(experts.get_submodule(module), last, nn.Parameter(share))
    experts.mesh = mesh

    def send(
        module: nn.Module, slots_and_filled: tuple[Float[Tensor, "E N D"], Bool[Tensor, "E G C"]]
    ) -> tuple[Any, ...]:
        slots, filled = slots_and_filled
        slots = _at_experts(_exchanged(slots.to(product_dtype(slots)), group), num_ranks)
        if experts.hidden_norm is None:  # nothing else asks which slots are filled
            return slots, None
        return slots, _at_experts(_exchanged(filled.byte(), group), num_ranks).bool()

    def send_back(module: nn.Module, inputs: Any, outputs: Float[Tensor, "e M D"]) -> Float[Tensor, "E N D"]:
        return _exchanged(outputs.unflatten(1, (num_ranks, -1)).transpose(0, 1).flatten(0, 1), group)

    experts.register_forward_pre_hook(send)
    experts.register_forward_hook(send_back)


def shared_experts(model: nn.Module) -> dict[str, DeviceMesh]:
    """The parameters of which each rank has but the share of its experts, by name, and the mesh of ranks."""
    return {
        f"{name}.{parameter}": module.mesh
        for name, module in model.named_modules()
        if isinstance(module, Experts) and module.mesh is not None
        for parameter, _ in module.named_parameters()
    }


def as_shard(share: Tensor, mesh: DeviceMesh) -> DTensor:
    """A rank's share of a tensor whose first axis is that of the experts, as a part of the whole one."""
    return DTensor.from_local(share, mesh["expert"], [Shard(0)], run_check=False)


def _exchanged(chunks: Tensor, group: ProcessGroup) -> Tensor:
    """Chunk number r of the first axis goes to rank r; what comes lies in the order of its ranks."""
    return all_to_all_single_autograd(chunks.contiguous(), None, None, group)


def _at_experts(received: Tensor, num_ranks: int) -> Tensor:
    """The slots of each expert of this rank in a row, rank by rank."""
    return received.unflatten(0, (num_ranks, -1)).transpose(0, 1).flatten(1, 2)
