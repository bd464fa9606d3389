"""What the ranks of some layouts find: curves of training, also from checkpoints, and evaluations.

Arguments: where to write, how many steps, and stages, each a number of ranks and layouts, which are
`data,shard,expert` and may name the routers that they are for: `4:2,1,2;4,1,1/soft,uniform`.
"""

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from routerbench.build import build_backbone, router_names, sparsify
from routerbench.checkpoint import RunCheckpoints
from routerbench.evaluate import evaluate
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.optim import make_optimizer
from routerbench.parallel import AXES, make_mesh, network, spread, whole_weights
from routerbench.ranks import joined, num_ranks, rank
from routerbench.signals import Warned
from routerbench.state import State
from routerbench.step import TrainingStep
from routerbench.train import Progress

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", enabled=False)
BATCH_SIZE, NUM_PARTS = 16, 2
NUM_FURTHER = 3  # steps from a checkpoint
KEPT = ("soft", "sigmoid_bias")  # a parameter without axes, and buffers that change
EVALUATED = ((7, 2), (2, 2), (9, 4))  # images, and those of a batch

Curve = list[list[float]]


def main() -> None:
    """Write what the layouts find: a list of stages, by layout."""
    file, num_steps, *stages = sys.argv[1:]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = [found_by(Path(folder), int(num_steps), *stage.split(":")) for stage in stages]
    Path(file).write_text(json.dumps(found))


def found_by(folder: Path, num_steps: int, num_ranks: str, layouts: str) -> dict[str, Any]:
    """What the ranks find of each layout, also from the checkpoints of the stages before."""
    os.environ |= {"WORLD_SIZE": num_ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    before = sorted((folder / "kept").glob("*/*"))
    # They start as copies of this process, which has imported all there is.
    words = (folder, num_steps, layouts.split(";"), before)
    start_processes(as_rank, words, int(num_ranks), start_method="fork")
    return json.loads((folder / "found.json").read_text())


def free_port() -> str:
    with socket.socket() as any_port:
        any_port.bind(("localhost", 0))
        return str(any_port.getsockname()[1])


def as_rank(number: int, folder: Path, num_steps: int, layouts: list[str], before: list[Path]) -> None:
    """One of the processes of a stage."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
    found = {}
    with joined(timeout_seconds=60, device="cpu"):
        for words in layouts:
            layout, _, routers = words.partition("/")
            found[layout] = of_layout(folder / "kept", num_steps, before, layout, routers)
        if rank() == 0:
            (folder / "found.json").write_text(json.dumps(found))


def of_layout(folder: Path, num_steps: int, before: list[Path], layout: str, routers: str) -> dict[str, Any]:
    """What one layout finds; a checkpoint is in the middle of the steps."""
    middle = num_steps // 2
    sizes = [int(size) for size in layout.split(",")]
    curves = {}
    for name in routers.split(",") if routers else router_names():
        step = make_step(name, sizes)
        kept = checkpoints(step, folder / layout / name)
        curves[name] = curve(step, 0, middle)
        if name in KEPT:
            kept.save(Progress(step=middle))
        curves[name] += [*curve(step, middle, num_steps), averages(step)]
    goes_on = {
        f"{path.parent.name} {path.name}": continued(path.name, sizes, path)
        for path in before
        if path.name in curves
    }
    return {"curves": curves, "goes on": goes_on, "evaluations": evaluations(sizes)}


def make_step(router: str, sizes: list[int]) -> TrainingStep:
    """A step with noise, drop path, dropout, accumulation, mixing, clipping and averaged weights."""
    torch.manual_seed(rank())  # the weights are to be those of the first rank all the same
    model = small_vit(router, drop_path_rate=0.2, proj_drop_rate=0.1, expert_dropout=0.0)
    model.set_grad_checkpointing(router == "token_choice")  # whose noise is then drawn again
    mesh = make_mesh(dict(zip(AXES, sizes, strict=True)), CPU)
    ema = ModelEmaV3(model, decay=0.9, foreach=sizes[1] == 1)  # one kernel does not take both
    for spread_out in (model, ema.module):
        spread(spread_out, mesh)
    torch.manual_seed(1)
    return TrainingStep(
        model.train(),
        list(moe_layers(model).values()),
        make_optimizer(model, name="adamw", lr=4e-3, weight_decay=0.05),
        F.cross_entropy,
        mix=neighbours_mixed,
        ema=ema,
        accumulation_steps=NUM_PARTS,
        clip_grad=0.5,
        autocast=FP32,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=CPU,
        network=network(model, mesh),
    )


def small_vit(
    router: str, group: int | str = "image", expert_dropout: float | None = None, **arguments: float
) -> Any:
    """Two blocks, the second with experts."""
    size = {"depth": 2, "embed_dim": 16, "num_heads": 2}
    model = build_backbone("pocket_vit", 10, 32, **size, **arguments)
    sparsify(model, router, 4, [1], group, expert_dropout=expert_dropout)
    take_shape(model, (32, 32))
    return model


def curve(step: TrainingStep, first: int, end: int) -> Curve:
    """The losses and the norm of the gradient of some steps, and the bias of the router."""
    return [losses(step, number) for number in range(first, end)]


def losses(step: TrainingStep, number: int) -> list[float]:
    """What a step on this rank's rows of random images finds."""
    generator = torch.Generator().manual_seed(number)
    rows = torch.arange(BATCH_SIZE).view(NUM_PARTS, num_ranks(), -1)[:, rank()].flatten()
    images = torch.randn(BATCH_SIZE, 3, 32, 32, generator=generator)[rows]
    labels = torch.randint(10, (BATCH_SIZE,), generator=generator)[rows]
    result = step(images, labels, number)
    bias = [buffer.abs().sum() for name, buffer in step.model.named_buffers() if name.endswith("bias")]
    return [value.item() for value in (*result.losses.values(), result.grad_norm, *bias)]


def averages(step: TrainingStep) -> list[float]:
    """The mean size of each averaged parameter."""
    assert step.ema is not None
    whole = whole_weights(step.ema.module)
    return [whole[name].abs().mean().item() for name, _ in step.ema.module.named_parameters()]


def neighbours_mixed(images: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Mixup of images side by side, with a share that changes from step to step."""
    share, targets = 0.5 + 0.02 * number, F.one_hot(labels, 10).float()
    return tuple(  # type: ignore[return-value]
        share * rows + (1 - share) * rows.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        for rows in (images, targets)
    )


def checkpoints(step: TrainingStep, folder: Path) -> RunCheckpoints:
    """The checkpoints of a run without rows."""
    return RunCheckpoints(
        folder,
        folder / "metrics.jsonl",
        State(step.model, step.optimizer, step.scaler, step.ema, CPU),
        Warned(),
        every_steps=None,
        every_minutes=None,
        keep=1,
        peak_memory_gib=lambda: None,
        check=lambda: None,
    )


def continued(router: str, sizes: list[int], folder: Path) -> Curve:
    """Some steps from a checkpoint in the middle of a curve."""
    step = make_step(router, sizes)
    progress = checkpoints(step, folder).restore()
    return curve(step, progress.step, progress.step + NUM_FURTHER)


def evaluations(sizes: list[int]) -> list[dict[str, Any]]:
    """Of few images, for which there may be more ranks than batches, of groups of one image and of two."""
    found = []
    for num_images, batch_size in EVALUATED:
        torch.manual_seed(0)
        for model in (small_vit("token_choice", group=2), small_vit("soft"), small_convnext()):
            spread(model, make_mesh(dict(zip(AXES, sizes, strict=True)), CPU))
            evaluation = evaluate(model, own_batches(num_images, batch_size), CPU, FP32)
            maps = {name: array.tolist() for name, array in evaluation.maps.items()}
            found.append({**evaluation.metrics, **maps, "correct": evaluation.correct.tolist()})
    return found


def small_convnext() -> nn.Module:
    """Four blocks, the second with experts that normalise over the slots that are filled."""
    model = build_backbone("pocket_convnext", 10, 32, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), use_grn=True)
    sparsify(model, "token_choice", 4, [1])
    for layer in moe_layers(model).values():
        assert layer.experts.hidden_norm is not None
        nn.init.normal_(layer.experts.hidden_norm.get_parameter("weight"))
    return model


def own_batches(num_images: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """Random images in batches: those of this rank, which with those of all ranks are each once, in order."""
    generator = torch.Generator().manual_seed(num_images)
    images = torch.randn(num_images, 3, 32, 32, generator=generator).split(batch_size)
    labels = (torch.arange(num_images) % 10).split(batch_size)
    first, end = (len(images) * number // num_ranks() for number in (rank(), rank() + 1))
    return list(zip(images, labels, strict=True))[first:end]


if __name__ == "__main__":
    main()
