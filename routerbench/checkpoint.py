"""Checkpoints: the whole state of a run, on disk, in a form that knows no number of processes.

They are folders of safetensors files with checksums, written by `torch.distributed.checkpoint`.
"""

import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import TensorStorageMetadata

from routerbench.ranks import agreed, any_rank, gathered, rank
from routerbench.records import writing
from routerbench.signals import RequeueError, Warned
from routerbench.state import State, as_tensor
from routerbench.train import Progress
from routerbench.weights import sha256_of

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
STEPS = "step-" + "[0-9]" * 9
Item = TypeVar("Item")


@dataclass
class RunCheckpoints:
    """The checkpoints of a run, `step-<number>` in `folder`: the last `keep`, and the best."""

    folder: Path
    rows: Path
    """`metrics.jsonl`, which is cut back to where the state was saved."""
    state: State
    warned: Warned
    every_steps: int | None
    every_minutes: float | None
    keep: int
    peak_memory_gib: Callable[[], float | None]
    check: Callable[[], None]
    """Raises an error once the run belongs to another process."""
    saved: float = field(default_factory=lambda: time.monotonic())

    def due(self, progress: Progress) -> bool:
        """Whether the steps or minutes have passed, or a scheduler asks to stop."""
        by_steps = self.every_steps is not None and progress.step % self.every_steps == 0
        by_time = self.every_minutes is not None and time.monotonic() - self.saved >= 60 * self.every_minutes
        return by_steps or any_rank(by_time or self.warned.by is not None)

    def save(self, progress: Progress) -> None:
        """Keep the state that goes with this progress.

        Raises RequeueError, afterwards, where a scheduler asked to stop, and UnwritableError, with the
        earlier checkpoints as they were.
        """
        self.check()
        with writing(self.folder):
            progress.rows_bytes = agreed(lambda: _synced_size(self.rows))
            progress.peak_memory_gib = max(progress.peak_memory_gib, self.peak_memory_gib() or 0.0)
            kept = agreed(lambda: _as_tensors(progress))  # clocks differ
            write(self.folder / f"step-{progress.step:09d}", self.state.tensors() | kept)
            if rank() == 0:
                self._prune(progress.best_step)
        self.saved = time.monotonic()
        by = next(filter(None, gathered(self.warned.by)), None)
        if by is not None:
            raise RequeueError(f"stopped by {by} at step {progress.step}, which is kept")

    def watched(self, batches: Iterable[Item], progress: Progress) -> Iterator[Item]:
        """The batches of an evaluation, for whose end a scheduler need not wait."""
        for batch in batches:
            if any_rank(self.warned.by is not None):
                self.save(progress)
            yield batch

    def restore(self) -> Progress:
        """Go on from the latest checkpoint that is whole; from the start where there is none.

        Raises ValueError for a checkpoint of another model, and UnwritableError.
        """
        folder = agreed(lambda: next(filter(_is_whole, self._newest_first()), None))
        progress = Progress()
        if folder is not None:
            try:
                tensors = read(folder, self.state, _as_tensors(progress))
            except ValueError as error:
                raise ValueError(f"{folder} {error}: remove it to start again") from error
            self.state.take(tensors)
            for name, value in progress.kept().items():
                setattr(progress, name, type(value)(tensors[f"progress/{name}"].item()))
            progress.restarts += 1
        if rank() == 0:
            with writing(self.folder):
                self._go_back_to(folder, progress)
        return progress

    def _go_back_to(self, folder: Path | None, progress: Progress) -> None:
        """Take away what was written after the checkpoint: rows, and later checkpoints, which are damaged."""
        for later in self._newest_first():
            if folder is None or later.name > folder.name:
                shutil.rmtree(later)
        size = self.rows.stat().st_size if self.rows.exists() else 0
        if size > progress.rows_bytes:
            os.truncate(self.rows, progress.rows_bytes)
        elif size < progress.rows_bytes:
            logger.warning("%s has lost rows: it is shorter than when the checkpoint was written", self.rows)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob(STEPS), reverse=True)

    def _prune(self, best_step: int) -> None:
        for folder in self._newest_first()[self.keep :]:
            if folder.name != f"step-{best_step:09d}":
                shutil.rmtree(folder)


def write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint, whole or not at all; every process calls this with its shards.

    Raises UnwritableError where the disk does not take it.
    """
    partial = folder.with_name(f".{folder.name}")
    try:
        with writing(folder):
            _write_shards(partial, tensors)
            if rank() == 0:
                _put_in_place(partial, folder)
    except BaseException:
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    _wait_for_all()


def _write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    _wait_for_all()
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}  # safetensors knows no other
    try:
        with _one_process_is_fine():
            writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
            dcp.save(tensors, storage_writer=writer)
    except dcp.CheckpointException as error:  # which is no Exception
        reason, _ = next(iter(error.failures.values()))
        raise reason from error


def _put_in_place(partial: Path, folder: Path) -> None:
    """Give a checkpoint its name once all of it is on the disk."""
    sums = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
    (partial / CHECKSUMS).write_text(json.dumps(sums))
    for path in (*partial.iterdir(), partial):
        _sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    _sync(folder.parent)


def read(folder: Path, state: State, further: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a checkpoint holds of `state` and `further`; the weights are read into the model's own.

    Raises ValueError for a checkpoint of another model.
    """
    reader = dcp.HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    sizes = {
        name: (entry.size, entry.properties.dtype)
        for name, entry in stored.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    room = state.room_for({name: size for name, size in sizes.items() if name not in further})
    tensors = room | {name: tensor for name, tensor in further.items() if name in sizes}
    with _one_process_is_fine():
        dcp.load(tensors, storage_reader=reader)
    return tensors


def kept_steps(folder: Path) -> dict[int, Path]:
    """The checkpoints in the folder of a run by their step, the earliest first."""
    return {int(path.name[5:]): path for path in sorted((folder / "checkpoint").glob(STEPS))}


def read_weights_into(model: nn.Module, folder: Path, kind: str) -> None:
    """Give a model the weights of a checkpoint of it: raw, or ema, their average.

    Raises ValueError for one that is damaged or of another model.
    """
    if not _is_whole(folder):
        raise ValueError(f"{folder} is damaged: remove it")
    prefix = {"raw": "model", "ema": "ema"}[kind]
    weights = {f"{prefix}/{name}": value for name, value in model.state_dict().items()}
    reader = dcp.HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    for name, value in weights.items():
        entry = stored.get(name)
        if not isinstance(entry, TensorStorageMetadata) or entry.size != value.shape:
            raise ValueError(f"{folder} is of another model: it has no {name} of shape {tuple(value.shape)}")
    with _one_process_is_fine():
        dcp.load(weights, storage_reader=reader)


def _is_whole(folder: Path) -> bool:
    """Whether the files of a checkpoint are those that were written."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text())
        files = {file.name: file for file in folder.iterdir() if file.name != CHECKSUMS}
        whole = bool(files) and sums == {name: sha256_of(file) for name, file in files.items()}
    except (OSError, ValueError):
        whole = False
    if not whole:
        logger.warning("%s is damaged: the checkpoint before it is used", folder)
    return whole


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _synced_size(file: Path) -> int:
    if not file.exists():
        return 0
    _sync(file)
    return file.stat().st_size


def _as_tensors(progress: Progress) -> dict[str, Tensor]:
    return {f"progress/{name}": as_tensor(value) for name, value in progress.kept().items()}


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield
