"""The mirror in W&B says what ran, and none of its errors ends a run."""

import json
import logging
import os
import pickle
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from wandb.errors import CommError
from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

from routerbench.records import append_row
from routerbench.tracking import Mirror, mirror
from routerbench.tracking.start import start

SETTINGS = {
    "data": {"name": "digits"},
    "model": {"name": "pocket_vit"},
    "router": {"name": "soft", "_target_": "x"},
    "seed": 3,
}
ROWS = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0}, {"step": 2, "test/top1": 0.5}]


RECORD = {
    "run_id": "digits-soft-s3-id",
    "status": "done",
    "metrics": {"test/top1": 0.5, "fewshot/10": 0.25},
    "cost": {"params_total": 12},
    "config": SETTINGS,
    "error": None,
}


class Deaf:
    """A W&B run that fails at what it is told to."""

    def __init__(self, failing: str) -> None:
        self.failing = failing
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.finished = 0

    @property
    def step(self) -> int:
        return self.rows[-1]["step"] + 1 if self.rows else 0

    def log(self, row: dict[str, Any], step: int, commit: bool) -> None:
        self.rows.append(row)
        if self.failing == "log":
            raise ConnectionError("no net")

    def finish(self) -> None:
        self.finished += 1
        if self.failing == "finish":
            raise ConnectionError("no net")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No W&B settings of the user, and those that the mirror makes are taken back."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    wandb.teardown()  # its process, which later tests would inherit


def mirrored(folder: Path, mode: str) -> None:
    """A run from its first row to its record."""
    folder.mkdir(parents=True, exist_ok=True)
    with mirror(folder, "digits-soft-s3-id", "digits-soft-group", SETTINGS, mode) as mirrored:
        add(folder, mirrored, *ROWS)
        mirrored.keep(RECORD)


def add(folder: Path, mirrored: Mirror, *rows: dict[str, Any]) -> None:
    """Write rows as a run does: into its file, and then to the mirror."""
    for row in rows:
        append_row(folder / "metrics.jsonl", row)
        mirrored.log(row)


def cut_back(folder: Path, num_rows: int) -> None:
    """Leave the first rows, as going back to a checkpoint does."""
    path = folder / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:num_rows]))


def stored(folder: Path) -> list[Any]:
    """What an offline run wrote, record by record."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    # W&B's own process may still write when the run is finished here.
    while not any(message.HasField("exit") for message in messages_of(path.read_bytes())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return messages_of(path.read_bytes())


def history_of(messages: list[Any]) -> list[dict[str, Any]]:
    """The rows, by step."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in message.history.item}
        for message in messages
        if message.HasField("history")
    ]


def messages_of(content: bytes) -> list[Any]:
    start, messages = 7, []
    # LevelDB's log: checksum (4 bytes), length (2), kind (1: not split), and these records fit one block.
    while start + 7 <= len(content):
        length, kind = struct.unpack_from("<HB", content, start + 4)
        assert kind == 1
        message: Any = Record()
        start += 7 + length
        if start <= len(content):  # else the last one is still being written
            message.ParseFromString(content[start - length : start])
            messages.append(message)
    return messages


@pytest.mark.filterwarnings("default")  # W&B's own
def test_the_record_is_in_the_summary_of_an_offline_run(tmp_path: Path) -> None:
    with mirror(tmp_path, "digits-soft-s3-id", "group", SETTINGS, "offline") as mirrored:
        add(tmp_path, mirrored, {"step": 1, "train/loss": 2.0, "test/top1": 0.125})
        mirrored.keep(RECORD)
    summaries = [message.summary for message in stored(tmp_path) if message.HasField("summary")]
    kept = {item.key: json.loads(item.value_json) for one in summaries for item in one.update if item.key}
    assert json.loads(kept["record"]) == {
        "schema": 1,
        "run_id": "digits-soft-s3-id",
        "status": "done",
        "metrics": {"test/top1": 0.5, "fewshot/10": 0.25},
        "cost": {"params_total": 12},
        "error": None,
    }
    assert (kept["fewshot/10"], kept["cost/params_total"], kept["status"]) == (0.25, 12, "done")
    assert "record_sha256" not in kept  # which says that the files are there too


def test_after_an_error_the_record_goes_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Deaf("log")
    monkeypatch.setattr(wandb, "init", lambda **settings: run)
    with mirror(tmp_path, "id", "group", SETTINGS, "online") as mirrored:
        add(tmp_path, mirrored, *ROWS)
        mirrored.keep(RECORD)
    assert (run.summary, run.finished) == ({}, 1)


@pytest.mark.filterwarnings("default")  # W&B's own
def test_a_run_that_goes_on_is_one_offline_run_with_the_rows_of_its_file(tmp_path: Path) -> None:
    rows = [{"step": step, "train/loss": float(step)} for step in range(1, 6)]
    with mirror(tmp_path, "id", "group", SETTINGS, "offline") as mirrored:
        add(tmp_path, mirrored, *rows[:3])
    with mirror(tmp_path, "id", "group", SETTINGS, "offline") as mirrored:
        cut_back(tmp_path, 2)  # once the mirror is there, as a run does
        again = {"step": 3, "train/loss": 30.0}
        add(tmp_path, mirrored, again, rows[3])
        cut_back(tmp_path, 1)  # and once more in the midst, as for want of memory
        add(tmp_path, mirrored, rows[1], again, rows[3], rows[4])
        mirrored.keep(RECORD)
    history = history_of(stored(tmp_path))  # of the one folder that is left
    assert [(row["_step"], row["train/loss"]) for row in history] == [(1, 1), (2, 2), (3, 30), (4, 4), (5, 5)]


@pytest.mark.filterwarnings("default")  # W&B's own
def test_wandb_draws_no_random_numbers_which_the_training_would_miss(tmp_path: Path) -> None:
    def state() -> bytes:
        return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))

    before = state()
    run = start(tmp_path, "id", "group", SETTINGS, "offline")
    run.log(ROWS[0], step=1, commit=True)
    run.finish()
    assert state() == before


def test_a_run_that_fails_before_its_first_row_has_its_record_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Deaf("nothing")
    monkeypatch.setattr(wandb, "init", lambda **settings: run)
    with mirror(tmp_path, "id", "group", SETTINGS, "offline") as mirrored:
        mirrored.keep({**RECORD, "status": "failed"})
    assert (run.summary["status"], run.rows, run.finished) == ("failed", [], 1)


@pytest.mark.filterwarnings("default")  # W&B's own
def test_an_offline_run_is_written_beside_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    mirrored(Path("first"), "offline")
    monkeypatch.chdir(tmp_path)  # which the process of W&B does not see
    mirrored(Path("run"), "offline")
    messages = stored(tmp_path / "run")
    (run,) = [message.run for message in messages if message.HasField("run")]
    assert (run.project, run.run_id, run.display_name) == (
        "routerbench",
        "digits-soft-s3-id",
        "digits-soft-s3-id",
    )
    assert (run.run_group, run.job_type) == ("digits-soft-group", "train")
    assert list(run.tags) == ["digits", "pocket_vit", "soft"]
    config = {item.key: item.value_json for item in run.config.update}
    assert config["seed"] == "3"
    history = history_of(messages)
    assert [(row["_step"], row["train/loss"], row.get("test/top1")) for row in history] == [
        (1, 2.0, None),
        (2, 1.0, 0.5),
    ]


def test_disabled_starts_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **settings: pytest.fail("W&B was started"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mirrored(tmp_path / "run", "disabled")
    assert list(tmp_path.rglob("*")) == [tmp_path / "run", tmp_path / "run" / "metrics.jsonl"]


def test_an_error_at_the_start_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**settings: Any) -> None:
        raise CommError("no net")

    monkeypatch.setattr(wandb, "init", fail)
    mirrored(tmp_path, "online")
    assert warnings_of(caplog) == ["W&B: CommError: no net; the run goes on, and its record is whole"]


@pytest.mark.parametrize(("failing", "num_rows"), [("log", 1), ("finish", 2)])
def test_an_error_in_the_midst_or_at_the_end_ends_nothing_and_is_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
    num_rows: int,
) -> None:
    run = Deaf(failing)
    monkeypatch.setattr(wandb, "init", lambda **settings: run)
    mirrored(tmp_path, "offline")
    assert (len(run.rows), run.finished) == (num_rows, 1)
    assert warnings_of(caplog) == ["W&B: ConnectionError: no net; the run goes on, and its record is whole"]


def test_the_mirror_is_finished_when_the_run_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Deaf):
        def log(self, row: dict[str, Any], step: int, commit: bool) -> None:
            raise KeyboardInterrupt

    run = Interrupted("nothing")
    monkeypatch.setattr(wandb, "init", lambda **settings: run)
    with pytest.raises(KeyboardInterrupt):
        mirrored(tmp_path, "offline")
    assert run.finished == 1


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
