"""Records: the folder of a run, and what stands in it when the run is over."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

SCHEMA = 1
HALF_WRITTEN = ".*.[0-9]*"  # the names of what `replaced` has not put in place
NO_RECORD = "is no record of a run: it is set aside when the run is started again"
STATUSES = ("done", "failed", "diverged", "oom")


class UnwritableError(OSError):
    """What a run leaves cannot be written, as on a full disk: the machine is at fault, not the run."""


def run_folder(results: Path, run_id: str) -> Path:
    """Where the run of this id lives."""
    return results / "runs" / run_id


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, an error of the file system is an UnwritableError that names the path."""
    try:
        yield
    except UnwritableError:  # which names the path itself
        raise
    except OSError as error:
        raise UnwritableError(f"{path} cannot be written: {error.strerror or error}") from error


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line to `metrics.jsonl`; raises UnwritableError, with a part of it there, on a full disk."""
    with writing(path), path.open("a") as file:
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


def make_folder(folder: Path) -> None:
    """Make a folder where there is none; raises UnwritableError, also for a file in its place."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run that is over; None while there is none. Raises ValueError for a damaged one."""
    content = _content(folder / "record.json")
    return None if content is None else _parsed(content, folder / "record.json")


def _content(path: Path) -> bytes | None:
    """What stands in a file, None where there is none; raises ValueError for a pipe, which never ends."""
    try:
        if not path.is_file() and path.exists():
            raise ValueError(f"{path} {NO_RECORD}")
        with path.open("rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):  # neither text nor JSON, or JSON that nobody would write
        record = None
    if not is_whole(record):
        raise ValueError(f"{path} {NO_RECORD}")
    return record


def own_record(folder: Path) -> dict[str, Any] | None:
    """As `read_record`; raises ValueError also for a record of another run than that of the folder."""
    record = read_record(folder)
    if record is not None and not is_of(record, folder):
        path = folder / "record.json"
        raise ValueError(f"{path} is no record of this run: it is set aside when the run is started again")
    return record


def keep_evaluation(
    folder: Path, record: dict[str, Any], study: str, mode: str, result: dict[str, Any]
) -> None:
    """Put what was found of a finished run into its record, as `evaluations.<study>.<mode>`.

    All else in the record stays as it is. `record` is the one that the run had when it was opened. Raises
    ValueError where the run has been trained again since, and UnwritableError.
    """
    with _one_at_a_time(folder):
        now = own_record(folder)
        if now is None or now.get("provenance") != record.get("provenance"):
            raise ValueError(f"path={folder} has been trained again meanwhile: ask the new run")
        evaluations = now.setdefault("evaluations", {})
        evaluations.setdefault(study, {})[mode] = result
        write_text(folder / "record.json", json.dumps(now, indent=1) + "\n")


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Inside, no other process changes the record of this folder, on a file system that has locks."""
    with writing(folder), (folder / ".record.lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_aside(folder: Path, why: str) -> Path:
    """Rename `record.json` to `record.<why>-<number>.json`, which no reader takes for a record."""
    number = 1
    while (kept := folder / f"record.{why}-{number}.json").exists():
        number += 1
    with writing(kept):
        (folder / "record.json").rename(kept)
    return kept


def each_record(results: Path | str) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Every `record.json` below `results`/runs with what it holds, None for one that is no whole record."""
    return ((path, record) for path, record, _ in each_record_and_digest(results))


def each_record_and_digest(results: Path | str) -> Iterator[tuple[Path, dict[str, Any] | None, str]]:
    """As `each_record`, and the digest of the file as it was read."""
    runs = Path(results, "runs")
    # Listed and not globbed, which takes a folder that may not be read for an empty one.
    for path in sorted(run / "record.json" for run in (runs.iterdir() if runs.is_dir() else ())):
        try:
            content = _content(path)
            if content is not None:  # it may be taken away while we read
                yield path, _parsed(content, path), digest(content)
        except (OSError, ValueError):
            yield path, None, ""


def digest(content: bytes) -> str:
    """What changes with every change of `record.json`."""
    return hashlib.sha256(content).hexdigest()


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
        of_any_version = type(record["schema"]) is int and record["schema"] >= 1
        return of_any_version and record["status"] in STATUSES and named
    except (KeyError, TypeError):
        return False


def ranked_weights(record: Mapping[str, Any] | None) -> str:
    """Which of a run's weights its record ranks: raw, or their average ema."""
    return str((record or {}).get("evaluation", {}).get("weights", "raw"))


def is_of(record: dict[str, Any], folder: Path) -> bool:
    """Whether a whole record is of the run whose folder this is, which is named by its id."""
    return record["run_id"] == folder.name


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary name that takes the place of `path` when the block has succeeded.

    Raises UnwritableError, with `path` as it was, where the disk does not take it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        with suppress(OSError):  # of a disk that can only be read
            partial.unlink()
