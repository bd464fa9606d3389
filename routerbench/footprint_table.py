"""The tables of `routerbench costs`: what a run takes on each GPU of a layout, or of all possible ones."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from routerbench.checks import check_count
from routerbench.config import check
from routerbench.footprint import Anatomy, Layout, anatomy, footprint
from routerbench.paste import pasted_file
from routerbench.records import write_text

# Headings, and what of a Footprint stands below them, in GiB.
COLUMNS = {
    "weights": "parameters",
    "grads": "gradients",
    "optim": "optimizer",
    "copies": "copies",
    "acts": "activations",
    "memory": "memory",
    "all-to-all": "all_to_all",
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
}


def show(configs: Sequence[DictConfig], num_gpus: int | None, paste: Path | None, console: Console) -> None:
    """Print the footprint of every configuration, in its layout or in all that so many GPUs allow it.

    Raises ValueError for a configuration that is none, or a file without the marker lines.
    """
    tables = [table(config, num_gpus) for config in configs]
    if paste is not None:
        write_text(paste, pasted_file(paste, "\n".join(markdown(*each) for each in tables), "footprint"))
    for caption, rows in tables:
        shown = Table(
            title=caption,
            title_justify="left",
            box=None,
            padding=(0, 1),
            collapse_padding=True,
            pad_edge=False,
        )
        for name in ("layout", *COLUMNS):
            shown.add_column(name.replace("-", "-\n"), no_wrap=True)  # within 80 columns
        for row in rows:
            shown.add_row(*row)
        console.print(shown)


def table(config: DictConfig, num_gpus: int | None) -> tuple[str, list[list[str]]]:
    """The caption and the rows, cells by `COLUMNS`, of one configuration."""
    of_layouts = layouts(config, num_gpus)
    parts = anatomy(config)
    found = [footprint(parts, layout, config) for layout in of_layouts]
    cells = [[f"{getattr(each, name) / 2**30:.2f}" for name in COLUMNS.values()] for each in found]
    return title(config, parts), [[str(each.layout), *row] for each, row in zip(found, cells, strict=True)]


def markdown(caption: str, rows: Sequence[Sequence[str]]) -> str:
    """A table with its caption."""
    heads = ["layout", *COLUMNS]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join([caption, "", *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def title(config: DictConfig, parts: Anatomy) -> str:
    """What the table is of."""
    costs = parts.costs
    total, of_experts, active = (
        f"{count / 1e6:.0f} M" for count in (costs.params_total, parts.params_experts, costs.params_active)
    )
    return (
        f"{config.model.name}, router={config.router.name}, num_experts={config.num_experts}, "
        f"placement={config.placement}, precision={config.precision}, batch_size={config.batch_size}: "
        f"{total} parameters, {of_experts} of experts, {active} active; an image takes "
        f"{costs.flops_per_image / 1e9:.1f} GFLOPs forward and {parts.kept_per_image / 2**20:.0f} MiB of "
        "activations; GiB of a GPU, and what it sends in a step"
    )


def layouts(config: DictConfig, num_gpus: int | None) -> list[Layout]:
    """All layouts of so many GPUs that the configuration allows; without their number its own."""
    if num_gpus is None:
        return [Layout(**config.parallel)]
    check_count("gpus", num_gpus)
    divisors = [size for size in range(1, num_gpus + 1) if num_gpus % size == 0]
    each = [Layout(num_gpus // size, *inner) for size in divisors for inner in {(1, size), (size, 1)}]
    found = [
        layout for layout in sorted(each, key=lambda one: (one.shard, one.expert)) if _fits(config, layout)
    ]
    if not found:
        raise ValueError(f"gpus={num_gpus}: no layout of so many divides batch_size={config.batch_size}")
    return found


def _fits(config: DictConfig, layout: Layout) -> bool:
    try:
        merged = OmegaConf.merge(config, {"parallel": asdict(layout)})
        assert isinstance(merged, DictConfig)
        check(merged)
    except ValueError:
        return False
    return True
