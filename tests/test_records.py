"""A record is whole or not there, a run has one owner, and what is damaged is named."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routerbench import records

RECORD: dict[str, Any] = {"run_id": "a", "status": "done", "config": {"seed": 0, "router": {"name": "soft"}}}

# Holds the lock on the file it is given until its standard input ends.
OWNER = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.truncate(0); file.write("process 1 on far"); file.flush()
print("mine", flush=True)
sys.stdin.read()
"""


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
        b"\xff",
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=exactly(f"{path} is no record of a run: remove it to run again")):
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


def test_a_claim_names_its_owner_and_ends_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    with records.claim(folder):
        assert (folder / "lock").read_text() == f"process {os.getpid()} on {os.uname().nodename}"
        with pytest.raises(records.RunningError), records.claim(folder):
            pass
    with records.claim(folder):
        pass


def test_a_claim_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), records.claim(tmp_path):
        raise KeyboardInterrupt
    with records.claim(tmp_path):
        pass


def test_a_run_of_another_process_cannot_be_claimed_until_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(records.RunningError, match=exactly("process 1 on far")), records.claim(tmp_path):
            pass
        assert (tmp_path / "lock").read_text() == "process 1 on far"
        other.kill()
        other.wait()
        with records.claim(tmp_path):
            pass
