"""What the runner adds to training: `routerbench train` against a bare loop over tensors in memory.

    python benchmarks/runner.py [WORD ...]

Words are settings of `routerbench train`, such as router=soft precision=bf16. A whole run of one epoch, with
its loader, routing metrics, records and W&B mirror, and an epoch of the loop take turns. The ratio is of the
images per second in the record of the run to those of the loop: 1 is a runner that adds nothing. Takes
about a minute.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from timm.utils.random import random_seed
from torch import nn

from routerbench import experiment, parts, records
from routerbench.attention import choose_attention
from routerbench.autotune import use_backend
from routerbench.compose import compose_sweep
from routerbench.evaluate import Batch
from routerbench.identity import identity, run_id
from routerbench.measure import PRECISIONS
from routerbench.moe.surgery import moe_layers, take_shape
from routerbench.signals import Warned

TURNS = 5


def recorded(config: DictConfig) -> tuple[float, str | None]:
    """Images per second of a run, and the backend that it took, by its record."""
    status = experiment.run(
        config, command="", repeat="", console=Console(quiet=True), title="", warned=Warned()
    )
    assert status == "done", status
    record = records.read_record(records.run_folder(Path(config.runtime.results), run_id(identity(config))))
    assert record is not None
    return record["cost"]["images_per_second"], record["provenance"]["backend"]


def bare(config: DictConfig, batches: list[Batch], num_classes: int, backend: str | None) -> float:
    """Images per second of the loop, on the same model, loss, optimizer and batches as the run."""
    random_seed(config.seed)
    model = parts.build_model(config, num_classes)
    parts.put_moe_layers(model, config)
    device, dtype = parts.choose_device(config.runtime.device), PRECISIONS[config.precision]
    take_shape(model.to(device), (config.data.image_size, config.data.image_size))
    choose_attention(model, device, dtype)
    if backend is not None:
        use_backend(model, backend)
    optimizer, _ = parts.optimizer_and_scheduler(model.train(), config.optim, 1, len(batches))
    routers = moe_layers(model).values()
    autocast = torch.autocast(device.type, dtype, enabled=config.precision != "fp32")
    started = perf_counter()
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        for layer in routers:
            assert layer.routing is not None
            loss = loss + sum(layer.routing.losses.values())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_grad)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return sum(len(labels) for _, labels in batches) / (perf_counter() - started)


def main(words: list[str]) -> None:
    """Print the table."""
    ratios = []
    table = Table(
        "turn", "routerbench train, images/s", "bare loop, images/s", "ratio", title=" ".join(words)
    )
    with tempfile.TemporaryDirectory() as results:
        own = ["epochs=1", "optim.warmup_epochs=0", "runtime.retry=true", f"runtime.results={results}"]
        (config,) = compose_sweep([*words, *own], None, False).configs
        data, device = parts.load_data(config), parts.choose_device(config.runtime.device)
        batches = [(images.to(device), labels.to(device)) for images, labels in data.train.epoch(0)]
        for turn in range(TURNS):
            config.seed = turn  # another run each time
            of_run, backend = recorded(config)
            of_loop = bare(config, batches, data.num_classes, backend)
            ratios.append(of_run / of_loop)
            table.add_row(str(turn + 1), f"{of_run:.0f}", f"{of_loop:.0f}", f"{ratios[-1]:.3f}")
    table.add_section()
    table.add_row("median", "", "", f"{median(ratios):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
