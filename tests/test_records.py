"""A record is whole or not there, and what is damaged is named and kept."""

import errno
import fcntl
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routerbench import records
from routerbench.ledger.ledger import read_ledger

RECORD: dict[str, Any] = {"run_id": "a", "status": "done", "config": {"seed": 0, "router": {"name": "soft"}}}


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    records.write_record(tmp_path, RECORD)
    assert records.read_record(tmp_path) == {"schema": 1, **RECORD}
    assert names(tmp_path) == {"record.json"}


def test_no_record_is_none(tmp_path: Path) -> None:
    assert records.read_record(tmp_path) is None
    assert records.read_record(tmp_path / "absent") is None


@pytest.mark.parametrize("failing", ["replace", "write_text", "fsync"])
@pytest.mark.parametrize("old", [None, {**RECORD, "status": "failed"}])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_record_or_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    old: dict[str, Any] | None,
    error: type[BaseException],
) -> None:
    if old is not None:
        records.write_record(tmp_path, old)
    before = records.read_record(tmp_path)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os if failing == "fsync" else Path, failing, fail)
        with pytest.raises(error, match="disk full"):
            records.write_record(tmp_path, RECORD)
    assert records.read_record(tmp_path) == before
    assert names(tmp_path) == ({"record.json"} if old else set())


def test_a_write_cut_in_half_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_text

    def half(path: Path, text: str, *args: Any, **kwargs: Any) -> int:
        whole(path, text[: len(text) // 2], *args, **kwargs)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space left"):
        records.write_record(tmp_path, RECORD)
    assert names(tmp_path) == set()


def test_a_record_that_cannot_be_written_as_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        records.write_record(tmp_path, {**RECORD, "metrics": {"test/top1": object()}})
    assert names(tmp_path) == set()


def test_a_disk_that_does_not_take_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    text = f"{tmp_path}/rows cannot be written: Is a directory"
    for write in (
        lambda: records.append_row(tmp_path / "rows", {"step": 1}),
        lambda: records.write_text(tmp_path / "rows", "text"),
    ):
        with pytest.raises(records.UnwritableError, match=exactly(text)):
            write()
    (tmp_path / "inspect").write_text("")
    text = f"{tmp_path}/inspect cannot be written: File exists"
    with pytest.raises(records.UnwritableError, match=exactly(text)):
        records.make_folder(tmp_path / "inspect")
    with pytest.raises(records.UnwritableError, match=r"record\.json cannot be written: No such file"):
        records.write_record(tmp_path / "absent", RECORD)


def test_records_of_an_older_and_a_newer_program_are_read(tmp_path: Path) -> None:
    older = {"schema": 1, **RECORD, "provenance": {"command": "routerbench train"}}
    newer = {"schema": 3, **RECORD, "energy": {"joules": 12.5}}
    for run_id, record in (("older", older), ("newer", newer)):
        folder = records.run_folder(tmp_path, run_id)
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record))
        assert records.read_record(folder) == record
    assert records.read_records(tmp_path)["energy.joules"].fillna(0).tolist() == [12.5, 0]


def test_a_record_that_is_set_aside_is_kept_and_none_of_a_run(tmp_path: Path) -> None:
    folder = records.run_folder(tmp_path, "a")
    folder.mkdir(parents=True)
    for content in ("{", "[]"):
        (folder / "record.json").write_text(content)
        records.set_aside(folder, "damaged")
    assert (folder / "record.damaged-1.json").read_text() == "{"
    assert (folder / "record.damaged-2.json").read_text() == "[]"
    assert list(records.each_record(tmp_path)) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_record_that_is_no_file_is_damaged_and_is_never_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder = records.run_folder(tmp_path, "a")
    folder.mkdir(parents=True)
    path = folder / "record.json"
    make(path)
    problem = f"{path} is no record of a run: it is set aside when the run is started again"
    with pytest.raises(ValueError, match=exactly(problem)):
        records.own_record(folder)
    assert list(records.each_record(tmp_path)) == [(path, None)]
    assert read_ledger(tmp_path).damaged == (path,)
    records.set_aside(folder, "damaged")
    assert names(folder) == {"record.damaged-1.json"}


def test_an_evaluation_is_kept_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = tmp_path / "a"
    folder.mkdir()
    records.write_record(folder, RECORD)
    records.keep_evaluation(folder, RECORD, "capacity", "trained", {"top1": 0.5})
    kept = records.read_record(folder)
    assert kept is not None
    assert kept["evaluations"] == {"capacity": {"trained": {"top1": 0.5}}}


def test_the_digest_is_of_the_file_that_was_read(tmp_path: Path) -> None:
    folder = records.run_folder(tmp_path, "a")
    folder.mkdir(parents=True)
    records.write_record(folder, RECORD)
    ((path, record, digest),) = records.each_record_and_digest(tmp_path)
    assert digest == records.digest(path.read_bytes())
    assert record == {"schema": 1, **RECORD}


def test_correctness_comes_back_as_it_was_written(tmp_path: Path) -> None:
    records.write_correct(tmp_path, np.array([True, False, True]))
    correct = np.load(tmp_path / "correct.npy")
    assert (correct.dtype, correct.tolist()) == (np.bool_, [True, False, True])
    assert names(tmp_path) == {"correct.npy"}


def test_rows_are_lines_of_json(tmp_path: Path) -> None:
    for step in (1, 2):
        records.append_row(tmp_path / "metrics.jsonl", {"step": step, "train/loss": 0.5})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": step, "train/loss": 0.5} for step in (1, 2)]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"status": "done"}',
        '{"status": "going", "config": {}}',
        '{"status": ["done"], "config": {}}',
        json.dumps({"schema": 0, **RECORD}),
        json.dumps({"schema": True, **RECORD}),
        json.dumps({"schema": "1", **RECORD}),
        json.dumps({"schema": 1, **RECORD, "status": "going"}),
        b"\xff",
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    text = f"{path} is no record of a run: it is set aside when the run is started again"
    with pytest.raises(ValueError, match=exactly(text)):
        records.read_record(tmp_path)


def test_records_are_rows_and_damaged_ones_are_named(tmp_path: Path) -> None:
    for run_id in ("a", "b", "cut"):
        folder = records.run_folder(tmp_path, run_id)
        folder.mkdir(parents=True)
        records.write_record(folder, {**RECORD, "run_id": run_id, "metrics": {"test/top1": 0.5}})
    (folder / "record.json").write_text("{")
    (tmp_path / "runs" / "unfinished").mkdir()
    frame = records.read_records(tmp_path)
    assert frame["run_id"].tolist() == ["a", "b"]
    assert frame["config.router.name"].tolist() == ["soft", "soft"]
    assert frame["metrics.test/top1"].tolist() == [0.5, 0.5]
    assert frame.attrs["damaged"] == [str(folder / "record.json")]
    assert records.read_records(str(tmp_path)).equals(frame)


def test_a_folder_without_runs_has_no_rows(tmp_path: Path) -> None:
    frame = records.read_records(tmp_path)
    assert (len(frame), frame.attrs["damaged"]) == (0, [])
