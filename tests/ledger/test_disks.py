"""On a disk that is full or can only be read nothing is lost, and what is at fault is named."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from routerbench import checkpoint, records
from routerbench.ledger.attempts import claimed
from routerbench.ledger.ledger import read_ledger
from routerbench.records import UnwritableError
from routerbench.weights import write_weights

RECORD = {"run_id": "a", "status": "done", "config": {"seed": 0, "router": {"name": "soft"}}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root mounts disks")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room; gives the file that takes it."""
    path = disk / "filler"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b" " * 4096)
    return path


def read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def files(disk: Path) -> set[Path]:
    return {path.relative_to(disk) for path in disk.rglob("*") if path.is_file()}


WRITERS: dict[str, Callable[[Path], object]] = {
    "record.json": lambda run: records.write_record(run, {**RECORD, "error": " " * 300_000}),
    "correct.npy": lambda run: records.write_correct(run, np.zeros(300_000, bool)),
    "metrics.jsonl": lambda run: records.append_row(run / "metrics.jsonl", {"step": "1" * 300_000}),
    "weights.safetensors": lambda run: write_weights(run, nn.Linear(300, 300)),
    "checkpoint/step-000000002": lambda run: checkpoint.write(
        run / "checkpoint" / "step-000000002", {"weight": torch.zeros(100_000)}
    ),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("spoil", "why"), [(fill, "No space left on device"), (read_only, "Read-only file system")]
)
def test_what_is_written_is_whole_or_as_it_was(
    disk: Path, name: str, spoil: Callable[[Path], object], why: str
) -> None:
    checkpoint.write(disk / "checkpoint" / "step-000000001", {"weight": torch.zeros(10)})
    records.write_record(disk, RECORD)
    spoil(disk)
    before = files(disk)
    with pytest.raises(UnwritableError, match=rf"^{disk}/{name} cannot be written: .*{why}"):
        WRITERS[name](disk)
    # A row alone is written in place; the run is cut back to its checkpoint.
    assert files(disk) - {Path("metrics.jsonl")} == before
    assert records.read_record(disk) == {"schema": 1, **RECORD}


def test_a_run_cannot_be_claimed_on_a_full_disk_until_it_has_room(disk: Path) -> None:
    (disk / "runs" / "a" / "attempts").mkdir(parents=True)
    filler = fill(disk)
    before = files(disk)
    with pytest.raises(UnwritableError, match=r"No space left on device$"), claimed(disk / "runs" / "a"):
        pass
    assert files(disk) == before
    filler.unlink()
    with claimed(disk / "runs" / "a"):
        pass


def test_why_an_attempt_has_ended_is_noted_on_a_full_disk(disk: Path) -> None:
    run = disk / "runs" / "a"

    def filled() -> None:
        with claimed(run):
            fill(disk)
            WRITERS["metrics.jsonl"](run)

    with pytest.raises(UnwritableError):
        filled()
    standing = read_ledger(disk).standing("a")
    text = f"{run}/metrics.jsonl cannot be written: No space left on device"
    assert (standing.state, standing.detail) == ("interrupted", text)


def test_a_disk_that_can_only_be_read_is_read_and_no_run_on_it_claimed(disk: Path) -> None:
    for name in ("done", "damaged"):
        folder = records.run_folder(disk, name)
        folder.mkdir(parents=True)
        records.write_record(folder, {**RECORD, "run_id": name})
    (folder / "record.json").write_text("{")
    with claimed(disk / "runs" / "stopped"):
        pass
    read_only(disk)
    found = read_ledger(disk)
    states = {name: found.standing(name).state for name in found.run_ids()}
    assert states == {"done": "done", "damaged": "interrupted", "stopped": "interrupted"}
    assert not (disk / "index.json").exists()
    with pytest.raises(UnwritableError, match=r"/runs/done cannot be written: Read-only file system$"):
        claimed(disk / "runs" / "done").__enter__()
