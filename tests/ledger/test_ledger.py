"""The ledger says of every run how it stands; its index only makes it fast."""

import json
import os
import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routerbench import records
from routerbench.ledger import index, ledger
from routerbench.ledger.attempts import claimed
from routerbench.ledger.entry import Entry
from routerbench.ledger.ledger import Standing, is_left, read_ledger

CONFIG: dict[str, Any] = {
    "seed": 3,
    "data": {"name": "digits"},
    "model": {"name": "vit"},
    "router": {"name": "soft"},
    "placement": "last_2",
}
RECORD: dict[str, Any] = {
    "schema": 1,
    "run_id": "a",
    "status": "done",
    "error": None,
    "config": CONFIG,
    "metrics": {"test/top1": 0.5},
    "cost": {"flops_per_image": 4000, "params_total": 30, "train_seconds": 2.0, "images_per_second": 8.5},
    "provenance": {
        "device": "a GPU",
        "finished": "2026-11-01T10:00:00+00:00",
        "parallel": {"data": 2, "shard": 3, "expert": 1},
    },
}


def put(results: Path, name: str, **changes: Any) -> Path:
    """The folder of a run with this record."""
    folder = records.run_folder(results, name)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**RECORD, "run_id": name, **changes})
    records.write_text(folder / "record.json", text)
    return folder


def states(results: Path) -> dict[str, tuple[str, str | None]]:
    found = read_ledger(results)
    standings = {name: found.standing(name) for name in found.run_ids()}
    return {name: (standing.state, standing.detail) for name, standing in standings.items()}


def never(*args: Any) -> Any:
    pytest.fail("a record is read again")


def test_an_entry_is_what_its_record_says(tmp_path: Path) -> None:
    folder = put(tmp_path, "a")
    (folder / "checkpoint" / "step-1").mkdir(parents=True)
    (folder / "checkpoint" / "step-1" / "shard").write_bytes(b" " * 1000)
    (entry,) = read_ledger(tmp_path).entries.values()
    assert entry == Entry(
        run_id="a",
        group=entry.group,
        twin=entry.twin,
        seed=3,
        status="done",
        error=None,
        top1=0.5,
        flops_per_image=4000,
        params_total=30,
        num_images=17.0,
        train_seconds=2.0,
        device="a GPU",
        num_processes=6,
        finished="2026-11-01T10:00:00+00:00",
        disk_bytes=1000 + (folder / "record.json").stat().st_size,
    )


def test_seeds_share_a_group_and_routers_a_twin(tmp_path: Path) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b", config=CONFIG | {"seed": 4})
    put(tmp_path, "c", config=CONFIG | {"router": {"name": "dense"}})
    put(tmp_path, "d", config=CONFIG | {"model": {"name": "convnext"}})
    a, b, c, d = read_ledger(tmp_path).entries.values()
    assert a.group == b.group != c.group
    assert a.twin == b.twin == c.twin != d.twin


def test_odd_parts_of_a_record_are_left_out(tmp_path: Path) -> None:
    parts = {"metrics": [1], "cost": {"train_seconds": "long"}, "provenance": None, "error": {"of": "them"}}
    put(tmp_path, "a", **parts, config={"seed": 0, "router": {"name": "soft"}})
    entry = read_ledger(tmp_path).entries["a"]
    assert (entry.group, entry.twin, entry.seed) == ("a", "a", 0)
    assert (entry.top1, entry.train_seconds, entry.num_images, entry.device) == (None, None, None, None)
    assert (entry.error, entry.num_processes) == (None, 1)


def test_every_state_and_its_detail(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    put(tmp_path, "done")
    put(tmp_path, "failed", status="failed", error="Traceback\n  line 3\nRuntimeError: boom\n")
    put(tmp_path, "diverged", status="diverged", error="the loss is nan at step 2")
    put(tmp_path, "oom", status="oom", error="out of memory")
    (put(tmp_path, "damaged") / "record.json").write_text("{")
    (runs / "old").mkdir()
    (runs / "old" / "lock").write_text("process 3 on far")
    (runs / "a file").write_text("of somebody else")
    with pytest.raises(KeyboardInterrupt), claimed(runs / "stopped"):
        raise KeyboardInterrupt
    with claimed(runs / "running"):
        found = states(tmp_path)
        state, detail = found.pop("running")
        text = rf"process {os.getpid()} on {re.escape(platform.node())}, heard of \d s ago"
        assert (state, re.fullmatch(text, str(detail)) is not None) == ("running", True), detail
        assert found == {
            "done": ("done", None),
            "failed": ("failed", "RuntimeError: boom"),
            "diverged": ("diverged", "the loss is nan at step 2"),
            "oom": ("oom", "out of memory"),
            "damaged": ("interrupted", "its record is damaged"),
            "old": ("interrupted", None),
            "stopped": ("interrupted", "KeyboardInterrupt"),
        }
    after = read_ledger(tmp_path)
    assert after.damaged == (runs / "damaged" / "record.json",)
    assert after.standing("unknown") == Standing("missing", None, None)
    assert after.standing("done").entry == after.entries["done"]


def test_a_record_in_the_folder_of_another_run_is_none_of_that(tmp_path: Path) -> None:
    other = put(tmp_path, "other", run_id="a")
    assert states(tmp_path) == {"other": ("interrupted", "its record is damaged")}
    with pytest.raises(ValueError, match=f"^{other}/record.json is no record of this run: it is set aside"):
        records.own_record(other)


def test_without_runs_it_is_empty_and_writes_nothing(tmp_path: Path) -> None:
    for results in (tmp_path, tmp_path / "absent"):
        found = read_ledger(results)
        assert (found.entries, found.damaged, found.run_ids()) == ({}, (), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("retry", "left"),
    [
        (None, set()),
        ("failed", {"failed"}),
        ("diverged", {"diverged"}),
        ("oom", {"oom"}),
        ("all", {"failed", "diverged", "oom"}),
    ],
)
def test_what_is_left(retry: str | None, left: set[str]) -> None:
    expected = {"running", "interrupted", "missing"} | left
    assert {state for state in ledger.STATES if is_left(state, retry)} == expected


def test_no_record_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        put(tmp_path, name)
    first = read_ledger(tmp_path)
    monkeypatch.setattr(ledger, "own_record", never)
    assert read_ledger(tmp_path) == first


def test_evaluations_change_no_entry_but_for_the_disk(tmp_path: Path) -> None:
    folder = put(tmp_path, "a")
    (before,) = read_ledger(tmp_path).entries.values()
    record = records.own_record(folder)
    assert record is not None
    records.keep_evaluation(folder, record, "capacity", "dropless=true", {"top1": 0.75})
    (after,) = read_ledger(tmp_path).entries.values()
    assert replace(after, disk_bytes=0) == replace(before, disk_bytes=0)
    assert "evaluations" not in (tmp_path / "index.json").read_text()


@pytest.mark.parametrize("spoil", [None, "", "{", "[]", "null", '{"version": 1}', b"\xff", "[" * 100_000])
def test_an_index_that_is_lost_or_damaged_is_made_again(tmp_path: Path, spoil: str | bytes | None) -> None:
    put(tmp_path, "a")
    first = read_ledger(tmp_path)
    path = tmp_path / "index.json"
    whole = path.read_bytes()
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil if isinstance(spoil, bytes) else spoil.encode())
    assert read_ledger(tmp_path) == first
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"fields": ["run_id", "group"]},
        {"runs": []},
        {"runs": {"a": []}},
        {"runs": {"a": [[1, 2, 3], ["a"]]}},
    ],
)
def test_an_index_of_another_program_is_made_again(tmp_path: Path, change: dict[str, Any]) -> None:
    put(tmp_path, "a")
    first = read_ledger(tmp_path)
    path = tmp_path / "index.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | change))
    assert read_ledger(tmp_path) == first
    assert path.read_text() == whole


def test_a_record_that_has_changed_is_read_again(tmp_path: Path) -> None:
    folder = put(tmp_path, "a")
    read_ledger(tmp_path)
    before = (folder / "record.json").stat()
    put(tmp_path, "a", metrics={"test/top1": 0.7})
    # As long, and with the time of a clock that was set back.
    assert (folder / "record.json").stat().st_size == before.st_size
    os.utime(folder / "record.json", ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert read_ledger(tmp_path).entries["a"].top1 == 0.7


def test_runs_that_come_and_go_do_so_in_the_index(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path, name)
    read_ledger(tmp_path)
    (tmp_path / "runs" / "a" / "record.json").unlink()
    put(tmp_path, "c")
    assert read_ledger(tmp_path).entries.keys() == {"b", "c"}
    assert index.load(tmp_path).keys() == {"b", "c"}


def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a")

    def unwritable(path: Path, text: str) -> None:
        raise records.UnwritableError("a read-only file system")

    monkeypatch.setattr(index, "write_text", unwritable)
    assert read_ledger(tmp_path).standing("a").state == "done"
    assert not (tmp_path / "index.json").exists()


def test_a_record_that_may_not_be_looked_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a")
    path = str(tmp_path / "runs" / "a" / "record.json")
    look = os.stat

    def denied(asked: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(asked) in (path, str(tmp_path / "runs" / "a")):
            raise PermissionError(13, "Permission denied")
        return look(asked, *args, **kwargs)

    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(ledger, "own_record", denied)
    assert read_ledger(tmp_path).damaged == (Path(path),)


def test_a_record_that_goes_while_it_is_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a")
    monkeypatch.setattr(ledger, "own_record", lambda folder: None)
    found = read_ledger(tmp_path)
    assert (found.entries, found.damaged) == ({}, ())
