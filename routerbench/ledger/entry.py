"""What the ledger keeps of a record, so that nobody need read it again."""

import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from routerbench.identity import group_id, twin_id


@dataclass(frozen=True)
class Entry:
    """A run that is over."""

    run_id: str
    """The name of its folder."""
    group: str
    """All runs that differ by their seed alone."""
    twin: str
    """All runs that differ by their seed and what makes them MoE."""
    seed: int
    status: str
    error: str | None
    """Its last line, where the run has not come to its end."""
    top1: int | float | None
    flops_per_image: int | float | None
    params_total: int | float | None
    num_images: int | float | None
    """Images trained on, counting an image once for each time it was seen."""
    train_seconds: int | float | None
    device: str | None
    num_processes: int
    finished: str | None
    """When, in UTC by ISO 8601."""
    disk_bytes: int
    """Of all files in its folder, when it was first looked at."""


def entry_of(record: dict[str, Any], folder: Path) -> Entry:
    """What is kept of a whole record, which stands in `folder`; of odd parts, by another program, nothing."""
    cost, origin = _part(record, "cost"), _part(record, "provenance")
    group, twin = _relatives(record)
    lines = (_text(record, "error") or "").strip().splitlines()
    return Entry(
        run_id=folder.name,
        group=group,
        twin=twin,
        seed=record["config"]["seed"],
        status=record["status"],
        error=lines[-1] if lines else None,
        top1=_number(_part(record, "metrics"), "test/top1"),
        flops_per_image=_number(cost, "flops_per_image"),
        params_total=_number(cost, "params_total"),
        num_images=_product(_number(cost, "images_per_second"), _number(cost, "train_seconds")),
        train_seconds=_number(cost, "train_seconds"),
        device=_text(origin, "device"),
        num_processes=math.prod(size for size in _part(origin, "parallel").values() if type(size) is int),
        finished=_text(origin, "finished"),
        disk_bytes=_disk_bytes(folder),
    )


def _relatives(record: dict[str, Any]) -> tuple[str, str]:
    """Its group and its twin; a configuration without their names has no relatives."""
    shared = {name: value for name, value in record["config"].items() if name != "seed"}
    return _names(json.dumps(shared)) or (record["run_id"], record["run_id"])


@lru_cache(maxsize=4096)
def _names(settings: str) -> tuple[str, str] | None:
    """Those that all seeds share: hashes, which take longer than to read the record."""
    config = json.loads(settings)
    try:
        return group_id(config), twin_id(config)
    except (KeyError, TypeError):
        return None


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _number(part: dict[str, Any], name: str) -> int | float | None:
    value = part.get(name)
    return value if type(value) in (int, float) else None


def _product(one: int | float | None, other: int | float | None) -> int | float | None:
    return None if one is None or other is None else one * other


def _text(part: dict[str, Any], name: str) -> str | None:
    value = part.get(name)
    return value if isinstance(value, str) else None


def _disk_bytes(folder: str | Path) -> int:
    with os.scandir(folder) as found:
        return sum(_size(item) for item in found)


def _size(item: os.DirEntry[str]) -> int:
    try:
        if item.is_dir(follow_symlinks=False):
            return _disk_bytes(item.path)
        return item.stat(follow_symlinks=False).st_size
    except OSError:  # it may be taken away while we look
        return 0
