"""What the ledger keeps of a record, so that nobody need read it again."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routerbench.identity import group_id, twin_id


@dataclass(frozen=True)
class Entry:
    """A run that is over."""

    run_id: str
    group: str
    """All runs that differ by their seed alone."""
    twin: str
    """All runs that differ by their seed and what makes them MoE."""
    seed: int
    status: str
    error: str | None
    """Its last line, where the run has not come to its end."""
    top1: float | None
    flops_per_image: int | float | None
    params_total: int | float | None
    num_images: int | float | None
    """That it was trained on, each as often as it was seen."""
    train_seconds: int | float | None
    device: str | None
    num_processes: int
    finished: str | None
    """When, in UTC by ISO 8601."""
    disk_bytes: int
    """Of all files in its folder."""


def entry_of(record: dict[str, Any], folder: Path) -> Entry:
    """What is kept of a whole record, which stands in `folder`."""
    config, cost, origin = record["config"], record.get("cost") or {}, record.get("provenance") or {}
    lines = (record.get("error") or "").strip().splitlines()
    return Entry(
        run_id=record["run_id"],
        group=group_id(config),
        twin=twin_id(config),
        seed=config["seed"],
        status=record["status"],
        error=lines[-1] if lines else None,
        top1=(record.get("metrics") or {}).get("test/top1"),
        flops_per_image=cost.get("flops_per_image"),
        params_total=cost.get("params_total"),
        num_images=_product(cost.get("images_per_second"), cost.get("train_seconds")),
        train_seconds=cost.get("train_seconds"),
        device=origin.get("device"),
        num_processes=math.prod((origin.get("parallel") or {}).values()),
        finished=origin.get("finished"),
        disk_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def _product(one: int | float | None, other: int | float | None) -> int | float | None:
    return None if one is None or other is None else one * other
