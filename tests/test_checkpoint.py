"""Checkpoints on disk: whole or not at all, the damaged ones known, the right ones kept."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from routerbench.checkpoint import RunCheckpoints
from routerbench.records import UnwritableError
from routerbench.signals import RequeueError, Warned
from routerbench.state import State
from routerbench.train import Progress


class Kept:
    """The checkpoints of a linear layer, whose weights are the number of the step when they are saved."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.layer = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.warned = Warned()
        settings: dict[str, Any] = {"every_steps": None, "every_minutes": None, "keep": 2, **changes}
        self.checkpoints = RunCheckpoints(
            folder / "checkpoint",
            folder / "metrics.jsonl",
            State(self.layer, optimizer, scaler, None, torch.device("cpu")),
            self.warned,
            peak_memory_gib=lambda: 0.5,
            check=lambda: None,
            **settings,
        )

    def save(self, step: int, **progress: Any) -> None:
        nn.init.constant_(self.layer.weight, step)
        self.checkpoints.save(Progress(step=step, **progress))

    def restored(self) -> tuple[int, float]:
        """The step of the progress, and what the weights say that it is."""
        progress = self.checkpoints.restore()
        return progress.step, self.layer.weight[0, 0].item()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoint").iterdir())


def test_a_run_goes_on_from_the_latest(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for step in (3, 12, 100):
        kept.save(step)
    assert names(tmp_path) == ["step-000000012", "step-000000100"]
    assert Kept(tmp_path).restored() == (100, 100.0)


def test_progress_is_kept_to_the_last_digit(tmp_path: Path) -> None:
    progress = Progress(7, 2, 448, 0.1 + 0.2, 1e9 / 3, 1, best_step=5, best_top1=1 / 3)
    kept = Kept(tmp_path)
    kept.checkpoints.save(progress)
    expected = {**progress.kept(), "restarts": 2, "peak_memory_gib": 0.5}
    assert Kept(tmp_path).checkpoints.restore().kept() == expected


def test_without_a_checkpoint_a_run_begins_and_its_rows_with_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("of a run that was killed before its first checkpoint\n")
    progress = Kept(tmp_path).checkpoints.restore()
    assert (progress.step, progress.restarts) == (0, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_rows_written_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    rows = tmp_path / "metrics.jsonl"
    rows.write_text("one\ntwo\n")
    Kept(tmp_path).save(2)
    rows.write_text("one\ntwo\nthree\nfou")
    Kept(tmp_path).restored()
    assert rows.read_text() == "one\ntwo\n"


def test_the_best_stays_beside_the_latest(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep=1)
    for step in (1, 2, 3, 4):
        kept.save(step, best_step=min(step, 2))
    assert names(tmp_path) == ["step-000000002", "step-000000004"]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def truncate(folder: Path) -> None:
    (file,) = shards(folder)
    file.write_bytes(file.read_bytes()[:-1])


def alter(folder: Path) -> None:
    (file,) = shards(folder)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def lose_a_file(folder: Path) -> None:
    shards(folder)[0].unlink()


def lose_the_sums(folder: Path) -> None:
    (folder / "checksums.json").unlink()


def spoil_the_sums(folder: Path) -> None:
    (folder / "checksums.json").write_text('{"shard')


def empty_the_sums(folder: Path) -> None:
    (folder / "checksums.json").write_text("{}")


def sums_that_are_no_table(folder: Path) -> None:
    (folder / "checksums.json").write_text('["shard"]')


DAMAGES = (
    truncate,
    alter,
    lose_a_file,
    lose_the_sums,
    spoil_the_sums,
    empty_the_sums,
    sums_that_are_no_table,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_known_and_the_one_before_is_used(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(tmp_path)
    kept.save(1)
    kept.save(2)
    latest = tmp_path / "checkpoint" / "step-000000002"
    damage(latest)
    with caplog.at_level(logging.WARNING):
        assert Kept(tmp_path).restored() == (1, 1.0)
    ours = [record.getMessage() for record in caplog.records if record.name == "routerbench.checkpoint"]
    assert ours == [f"{latest} is damaged: the checkpoint before it is used"]


def test_a_checksum_that_points_out_of_the_folder_reads_nothing_there(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.save(1)
    kept.save(2)
    latest = tmp_path / "checkpoint" / "step-000000002"
    sums = json.loads((latest / "checksums.json").read_text())
    (latest / "checksums.json").write_text(json.dumps(sums | {"../../../etc/hostname": "0"}))
    assert Kept(tmp_path).restored() == (1, 1.0)


def test_a_file_beyond_the_checksums_spoils_a_checkpoint(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.save(1)
    kept.save(2)
    (file,) = shards(tmp_path / "checkpoint" / "step-000000002")
    shutil.copy(file, file.with_name("shard-00002-model-00001-of-00001.safetensors"))
    assert Kept(tmp_path).restored() == (1, 1.0)


def test_a_writing_that_is_cut_short_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kept(tmp_path).save(1)

    def full(tensors: Any, storage_writer: Any) -> None:
        Path(storage_writer.path, "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(dcp, "save", full)
        with pytest.raises(UnwritableError, match="No space left"):
            Kept(tmp_path).save(2)
    assert names(tmp_path) == ["step-000000001"]
    assert Kept(tmp_path).restored() == (1, 1.0)
    Kept(tmp_path).save(3)
    assert Kept(tmp_path).restored() == (3, 3.0)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Kept(tmp_path).save(4)
    other = Kept(tmp_path)
    other.layer.register_parameter("bias", None)
    text = (
        f"{tmp_path}/checkpoint/step-000000004 is of another model: the model has not model/bias: "
        "remove it to start again"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        other.checkpoints.restore()


def test_a_checkpoint_is_due_by_steps(tmp_path: Path) -> None:
    checkpoints = Kept(tmp_path, every_steps=3).checkpoints
    assert [step for step in range(1, 10) if checkpoints.due(Progress(step=step))] == [3, 6, 9]


def test_a_checkpoint_is_due_by_minutes_since_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("routerbench.checkpoint.time.monotonic", lambda: now)
    kept = Kept(tmp_path, every_minutes=2.0)
    assert not kept.checkpoints.due(Progress(step=1))
    now += 119
    assert not kept.checkpoints.due(Progress(step=2))
    now += 1
    assert kept.checkpoints.due(Progress(step=3))
    kept.save(3)
    assert not kept.checkpoints.due(Progress(step=4))


def test_a_warning_makes_a_checkpoint_due_and_ends_the_run_after_it(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.warned.by = "SIGUSR1"
    assert kept.checkpoints.due(Progress(step=5))
    with pytest.raises(RequeueError, match=r"^stopped by SIGUSR1 at step 5, which is kept$"):
        kept.save(5)
    assert Kept(tmp_path).restored() == (5, 5.0)


def test_an_evaluation_stops_for_a_warning(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    batches = kept.checkpoints.watched(range(5), Progress(step=8))
    assert [next(batches), next(batches)] == [0, 1]
    kept.warned.by = "SIGTERM"
    with pytest.raises(RequeueError):
        next(batches)
    assert Kept(tmp_path).checkpoints.restore().step == 8


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    Kept(tmp_path).save(1)
    files = sorted(path.name for path in (tmp_path / "checkpoint" / "step-000000001").iterdir())
    assert files == ["checksums.json", "shard-00001-model-00001-of-00001.safetensors"]


def test_a_disk_that_is_full_is_an_error_of_the_run_and_keeps_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kept(tmp_path).save(1)

    def full(tensors: Any, storage_writer: Any) -> None:
        error = OSError(28, "No space left on device")
        raise dcp.CheckpointException("CheckpointException ranks:dict_keys([0])", {0: (error, [])})  # type: ignore[dict-item]

    monkeypatch.setattr(dcp, "save", full)
    text = f"^{tmp_path}/checkpoint/step-000000002 cannot be written: No space left on device$"
    with pytest.raises(UnwritableError, match=text):
        Kept(tmp_path).save(2)
    assert names(tmp_path) == ["step-000000001"]


def test_a_run_that_was_taken_over_writes_no_checkpoint(tmp_path: Path) -> None:
    def lost() -> None:
        raise KeyError

    kept = Kept(tmp_path)
    kept.save(1)
    kept.checkpoints.check = lost
    with pytest.raises(KeyError):
        kept.save(2)
    assert names(tmp_path) == ["step-000000001"]


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_new_one(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep=1)
    kept.save(1, best_step=1)
    kept.save(9, best_step=1)
    truncate(tmp_path / "checkpoint" / "step-000000009")
    assert Kept(tmp_path, keep=1).restored() == (1, 1.0)
    assert names(tmp_path) == ["step-000000001"]
    kept.save(2)
    assert names(tmp_path) == ["step-000000002"]


def test_what_only_looks_like_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep=1)
    kept.save(1)
    shutil.copytree(
        tmp_path / "checkpoint" / "step-000000001", tmp_path / "checkpoint" / "step-000000001.bak"
    )
    kept.save(2)
    assert names(tmp_path) == ["step-000000001.bak", "step-000000002"]
    assert Kept(tmp_path).restored() == (2, 2.0)


def test_rows_that_were_lost_are_not_made_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = tmp_path / "metrics.jsonl"
    rows.write_text("one\ntwo\n")
    Kept(tmp_path).save(2)
    rows.write_text("one\n")
    Kept(tmp_path).restored()
    assert rows.read_text() == "one\n"
    assert f"{rows} has lost rows: it is shorter than when the checkpoint was written" in caplog.messages
