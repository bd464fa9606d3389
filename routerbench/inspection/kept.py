"""What was seen of a run, kept in its folder so that pictures need no further pass."""

import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from routerbench.inspection.seen import LayerSeen, Seen
from routerbench.records import replaced

FILE = "seen.npz"
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def keep(folder: Path, seen: Seen, run: str) -> None:
    """Write the arrays; `run` says of which training they are. Raises UnwritableError."""
    arrays: dict[str, Any] = {"run": run, "num_layers": len(seen.layers)}
    arrays |= {field.name: getattr(seen, field.name) for field in fields(Seen) if field.name != "layers"}
    for number, layer in enumerate(seen.layers):
        arrays |= {f"{number}/{field.name}": getattr(layer, field.name) for field in fields(LayerSeen)}
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / FILE) as path, path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_kept(folder: Path, run: str) -> Seen | None:
    """What was kept; None where it is nothing, damaged, of other fields or of another training."""
    try:
        with (folder / FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["run"]) != run:
                return None
            layers = tuple(_layer(stored, number) for number in range(int(stored["num_layers"])))
            own = {field.name: stored[field.name] for field in fields(Seen) if field.name != "layers"}
    except UNREADABLE:
        return None
    own["class_names"] = tuple(str(name) for name in own["class_names"])
    return Seen(layers=layers, **own)


def _layer(stored: Any, number: int) -> LayerSeen:
    values: dict[str, Any] = {
        field.name: _plain(stored[f"{number}/{field.name}"]) for field in fields(LayerSeen)
    }
    values["grid"] = tuple(values["grid"].tolist())
    return LayerSeen(**values)


def _plain(value: np.ndarray) -> Any:
    """Text and numbers as Python has them, and arrays as they are."""
    return value.item() if value.ndim == 0 else value
