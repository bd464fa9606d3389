"""`metrics.jsonl` of a run -> values by epoch."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Curves:
    """Values by name and epoch, and how many lines could not be read; several of an epoch are averaged."""

    values: Mapping[str, Mapping[int, float]]
    damaged: int


def read_curves(folder: Path, names: Sequence[str]) -> Curves:
    """The curves of these names; without any where the folder has no `metrics.jsonl`."""
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Curves({}, 0)
    lines = [_row(line) for line in text.splitlines() if line.strip()]
    rows = [row for row in lines if row is not None]
    values = {name: by_epoch for name in names if (by_epoch := _by_epoch(rows, name))}
    return Curves(values, len(lines) - len(rows))


def _row(line: str) -> dict[str, Any] | None:
    """A line as a mapping with an epoch, None where it is not whole."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("epoch")) is int else None


def _by_epoch(rows: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    epochs: dict[int, list[float]] = {}
    for epoch, value in _numbers(rows, name):
        epochs.setdefault(epoch, []).append(value)
    return {epoch: math.fsum(values) / len(values) for epoch, values in sorted(epochs.items())}


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[int, float]]:
    for row in rows:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield row["epoch"], float(value)
