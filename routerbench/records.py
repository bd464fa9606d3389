"""Records: the folder of a run, who may write it, and what stands in it when the run is over."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

SCHEMA = 1
STATUSES = ("done", "failed", "diverged", "oom")


class RunningError(Exception):
    """Another process trains this run."""


def run_folder(results: Path, run_id: str) -> Path:
    """Where the run of this id lives."""
    return results / "runs" / run_id


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Own the run's folder; raises RunningError, with the owner, while another process does.

    Raises ValueError for a folder that cannot be written.

    The claim is the system's lock on a file, which ends with the process however that ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a+")
    except OSError as error:
        raise ValueError(f"runtime.results: {folder} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunningError(file.read()) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line to `metrics.jsonl`."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `record.json`, whole or not at all: a run is over when it stands."""
    write_text(folder / "record.json", json.dumps({"schema": SCHEMA, **record}, indent=1) + "\n")


def write_correct(folder: Path, correct: NDArray[np.bool_]) -> None:
    """Write `correct.npy`: for each test image whether it was right."""
    with replaced(folder / "correct.npy") as path, path.open("wb") as file:
        np.save(file, correct)


def write_maps(folder: Path, maps: dict[str, NDArray[np.float32]]) -> None:
    """Write `routing.npz`: the maps of every MoE layer by `<block>/<map>`; nothing where there are none."""
    if maps:
        with replaced(folder / "routing.npz") as path, path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **maps)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run that is over; None while there is none. Raises ValueError for a damaged one."""
    path = folder / "record.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):  # neither text nor JSON, or JSON that nobody would write
        record = None
    if not is_whole(record):
        raise ValueError(f"{path} is no record of a run: remove it to run again")
    return record


def each_record(results: Path | str) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Every `record.json` below `results`/runs with what it holds, None for one that is no whole record."""
    runs = Path(results, "runs")
    # Listed and not globbed, which takes a folder that may not be read for an empty one.
    for path in sorted(run / "record.json" for run in (runs.iterdir() if runs.is_dir() else ())):
        try:
            record = read_record(path.parent)
        except (OSError, ValueError):
            yield path, None
            continue
        if record is not None:  # it may be taken away while we read
            yield path, record


def read_records(folder: Path | str) -> "pandas.DataFrame":
    """A row for every record below `folder`/runs, a column for every entry, as `config.router.name`.

    Damaged records are left out, and named in the frame's `attrs["damaged"]`.
    """
    import pandas  # half a second, which training need not wait for

    found = list(each_record(folder))
    with pandas.option_context("mode.string_storage", "python"):  # pyarrow knows valid unicode alone
        frame = pandas.json_normalize([record for _, record in found if record is not None])
    frame.attrs["damaged"] = [str(path) for path, record in found if record is None]
    return frame


def is_whole(record: Any) -> TypeGuard[dict[str, Any]]:
    """Whether the record says at least what was run and what became of it."""
    try:
        names, seed = [record["run_id"], record["config"]["router"]["name"]], record["config"]["seed"]
        named = all(isinstance(name, str) for name in names) and type(seed) is int
        return record["schema"] == SCHEMA and record["status"] in STATUSES and named
    except (KeyError, TypeError):
        return False


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary name that takes the place of `path` when the block has succeeded."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
