"""`metrics.jsonl` of a run -> its numbers by step."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from routerbench.found import is_number


@dataclass(frozen=True)
class Row:
    """What one line says, of its entries those that are finite numbers."""

    step: int
    numbers: Mapping[str, float]


def read_rows(folder: Path) -> Iterator[Row]:
    """The lines that can be read; none where the folder has no `metrics.jsonl`."""
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            entries = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entries, dict) and type(entries.get("step")) is int:
            yield Row(
                entries["step"], {name: float(value) for name, value in entries.items() if is_number(value)}
            )
