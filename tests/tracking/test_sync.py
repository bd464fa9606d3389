"""W&B is made equal to the records, over HTTP, by a server that answers as W&B's does."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb

from routerbench import cli
from routerbench.identity import group_id
from routerbench.records import append_row, keep_evaluation, own_record, write_maps, write_record
from routerbench.report.runs.wandb_source import read_mirrored
from routerbench.tracking import Mirror, mirror
from routerbench.tracking import files as files_module
from routerbench.tracking import server as server_module
from routerbench.tracking import start as start_module
from routerbench.tracking import sync as sync_module
from routerbench.tracking.content import DIGEST, digest_of

pytestmark = pytest.mark.filterwarnings("default")  # W&B's own

SETTINGS: dict[str, Any] = {
    "data": {"name": "digits"},
    "model": {"name": "pocket_vit"},
    "router": {"name": "soft"},
}
ROWS = [
    {"step": 1, "train/loss": 2.0},
    {"step": 2, "train/loss": 1.0},
    {"step": 2, "test/top1": 0.5, "routing/blocks.3/load_cv": 0.25},
]


@pytest.fixture
def server(wandb_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module's stand-in, with nothing in it, which takes in at once what it is sent."""
    wandb_server.forget()
    monkeypatch.setattr(sync_module, "PAUSES", (0,))
    return wandb_server


@contextmanager
def dying(server: Any, after: int) -> Iterator[None]:
    """Inside, the server answers no more after so many requests, and nobody waits for it for long."""
    wandb.teardown()  # its process has read the settings
    server.requests.clear()
    server.dies_after = after
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "PATIENCE_SECONDS", 1)
        patch.setattr(start_module, "FINISH_SECONDS", 1)
        patch.setattr(files_module, "WAIT_SECONDS", 1)
        patch.setenv("WANDB_INIT_TIMEOUT", "1")
        for part in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER"):
            patch.setenv(f"WANDB__{part}_RETRY_MAX", "1")
            patch.setenv(f"WANDB__{part}_RETRY_WAIT_MIN_SECONDS", "0.1")
            patch.setenv(f"WANDB__{part}_RETRY_WAIT_MAX_SECONDS", "0.1")
        yield
    server.dies_after = None


def add_run(results: Path, name: str, **parts: Any) -> Path:
    """A run that is over, in `results`."""
    folder = results / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"test/top1": 0.5, "routing/blocks.3/load_cv": 0.25}
    config = {**SETTINGS, "seed": int(name[-1])}
    record = {"run_id": name, "status": "done", "metrics": metrics, "cost": {}, "config": config}
    write_record(folder, {**record, **parts})
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def sync(results: Path, *words: str) -> int | str | None:
    """The exit code of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["routerbench", "sync", "--results", str(results), *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code


def curve(run: Any) -> list[tuple[int, Any, Any]]:
    return [(row["_step"], row.get("train/loss"), row.get("test/top1")) for row in run.history]


def test_a_record_is_sent_whole_and_a_second_time_nothing(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = add_run(tmp_path, "a0")
    write_maps(folder, {"blocks.3/share_by_class": np.eye(3, dtype=np.float32)})
    assert sync(tmp_path) == 0
    assert capsys.readouterr().out == "[1/1] a0\n1 sent\n"
    (run,) = server.runs.values()
    assert (run.name, run.group, run.job_type) == ("a0", group_id({**SETTINGS, "seed": 0}), "train")
    assert (run.tags, run.complete) == (["digits", "pocket_vit", "soft"], True)
    assert {name: run.config[name] for name in (*SETTINGS, "seed")} == {**SETTINGS, "seed": 0}
    assert curve(run) == [(1, 2.0, None), (2, 1.0, 0.5)]
    assert run.summary[DIGEST] == digest_of(folder)
    (artifact,) = server.artifacts
    assert (artifact.name, artifact.run, artifact.state) == ("a0", "a0", "COMMITTED")
    for name in ("config.yaml", "metrics.jsonl", "record.json"):
        assert artifact.files[name] == (folder / name).read_bytes()
    assert artifact.files["maps.png"].startswith(b"\x89PNG")
    table = json.loads(artifact.files["layers.table.json"])
    assert (table["columns"], table["data"]) == (["layer", "load_cv"], [["blocks.3", 0.25]])
    (read,) = read_mirrored("wandb:team/routerbench").runs
    assert (read["run_id"], read["metrics.test/top1"], read["config.seed"]) == ("a0", 0.5, 0)

    server.requests.clear()
    assert sync(tmp_path) == 0
    assert (server.changes(), server.unknown) == ([], [])
    assert capsys.readouterr().out == "1 equal\n"
    assert not Path(os.environ["WANDB_DATA_DIR"]).exists()  # where copies of files would be


def test_what_wandb_has_not_taken_in_is_left_with_its_own_files(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = add_run(tmp_path, "a0") / "wandb"
    own.mkdir()
    monkeypatch.setattr(sync_module, "_send", lambda project, run: None)
    assert sync(tmp_path) == 75
    assert "left: a0: W&B has not taken it in; " in capsys.readouterr().out
    assert own.is_dir()


def test_a_dry_run_names_what_is_missing_and_sends_nothing(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, "a0")
    add_run(tmp_path, "a1")
    (tmp_path / "runs" / "going").mkdir()
    damaged = add_run(tmp_path, "b0") / "record.json"
    damaged.write_text("{")
    assert sync(tmp_path, "--dry-run") == 0
    assert server.changes() == []
    assert capsys.readouterr().out.splitlines() == [
        "2 to be sent, 1 not over, and left to their own mirrors, 1 damaged",
        f"no record of its folder's run: {damaged}",
        "a0",
        "a1",
    ]


def test_a_run_that_was_run_again_gets_its_new_record_and_further_rows(server: Any, tmp_path: Path) -> None:
    add_run(tmp_path, "a0", status="failed", metrics={}, error="boom")
    assert sync(tmp_path) == 0
    folder = add_run(tmp_path, "a0")
    append_row(folder / "metrics.jsonl", {"step": 3, "train/loss": 0.5})
    assert sync(tmp_path) == 0
    (run,) = server.runs.values()
    assert json.loads(run.summary["record"])["status"] == "done"
    assert curve(run) == [(1, 2.0, None), (2, 1.0, 0.5), (3, 0.5, None)]
    assert [one.run for one in server.artifacts] == ["a0", "a0"]


def test_a_record_with_a_new_evaluation_is_sent_once_more_and_no_row_twice(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = add_run(tmp_path, "a0")
    assert sync(tmp_path) == 0
    record = own_record(folder)
    assert record is not None
    keep_evaluation(folder, record, "capacity", "dropless=true", {"top1": 0.75})
    assert sync(tmp_path) == 0
    (run,) = server.runs.values()
    assert curve(run) == [(1, 2.0, None), (2, 1.0, 0.5)]
    assert (run.summary["eval/dropless_top1"], run.summary["test/top1"]) == (0.75, 0.5)
    assert run.summary[DIGEST] == digest_of(folder)
    (read,) = read_mirrored("wandb:team/routerbench").runs
    assert read["evaluations"] == {"capacity": {"dropless=true": {"top1": 0.75}}}
    server.requests.clear()
    assert sync(tmp_path) == 0
    assert server.changes() == []
    assert capsys.readouterr().out.splitlines()[-1] == "1 equal"


def test_what_an_evaluation_adds_while_its_run_is_sent_goes_there_the_next_time(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add_run(tmp_path, "a0")
    rows_of = sync_module.rows_of

    def meanwhile(of: Path) -> Iterator[dict[str, Any]]:
        record = own_record(folder)
        assert record is not None
        keep_evaluation(folder, record, "capacity", "dropless=true", {"top1": 0.75})
        return rows_of(of)

    with monkeypatch.context() as patch:
        patch.setattr(sync_module, "rows_of", meanwhile)
        assert sync(tmp_path) == 0
    (run,) = server.runs.values()
    assert "eval/dropless_top1" not in run.summary
    assert sync(tmp_path) == 0
    assert run.summary["eval/dropless_top1"] == 0.75
    assert run.summary[DIGEST] == digest_of(folder)


def test_what_a_broken_network_leaves_is_sent_the_next_time(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, "a0")
    assert sync(tmp_path) == 0
    add_run(tmp_path, "a1")
    add_run(tmp_path, "a2")
    with dying(server, after=10):  # in the midst of a1
        assert sync(tmp_path) == os.EX_TEMPFAIL
    *_, counts, left = capsys.readouterr().out.splitlines()
    assert counts == "1 equal, 2 to be sent"
    assert left.startswith("left: a1, a2: W&B: ")
    assert left.endswith("; the same command goes on with them")
    assert sync(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 equal, 2 sent"
    assert [run.name for run in server.runs.values()] == ["a0", "a1", "a2"]
    assert all(curve(run) == [(1, 2.0, None), (2, 1.0, 0.5)] for run in server.runs.values())


def test_a_run_that_is_half_there_goes_on_and_is_not_doubled(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, "a0")
    server.refused = {"CreateArtifact"}
    assert sync(tmp_path) == os.EX_TEMPFAIL
    (run,) = server.runs.values()
    assert len(run.history) == 2
    assert "CreateArtifact is refused" in capsys.readouterr().out
    server.refused = set()
    assert sync(tmp_path) == 0
    assert curve(run) == [(1, 2.0, None), (2, 1.0, 0.5)]
    assert len(server.artifacts) == 1


def test_without_a_network_all_is_left(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, "a0")
    with dying(server, after=0):
        assert sync(tmp_path) == os.EX_TEMPFAIL
    counts, left = capsys.readouterr().out.splitlines()
    assert counts == "1 to be sent"
    assert left.startswith("left: a0: W&B: ")


def test_a_run_that_wandb_does_not_take_stops_no_other(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a0", "a1"):
        add_run(tmp_path, name)
    server.refused = {"a0"}  # as it was deleted there
    assert sync(tmp_path) == os.EX_TEMPFAIL
    *_, counts, left = capsys.readouterr().out.splitlines()
    assert counts == "1 sent, 1 to be sent"
    assert left.startswith("left: a0: ")
    assert left.endswith("run a0 was previously created and deleted; the same command goes on with them")


def test_many_runs_take_few_questions(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "PER_QUESTION", 10)
    for number in range(21):
        folder = add_run(tmp_path, f"run-{number}")
        run = {"name": folder.name, "config": {}, "summary": {DIGEST: digest_of(folder)}}
        server.add("routerbench", run)
    assert sync(tmp_path) == 0
    assert server.requests.count("Runs") == 3
    assert len(server.requests) == 5


def test_what_wandb_refuses_is_one_line(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, "a0")
    assert sync(tmp_path, "--entity", "them") == 2
    assert capsys.readouterr().err == "routerbench: --entity=them is none of this key: me, team\n"
    monkeypatch.setattr(server, "key", "another")
    assert sync(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not logged in" in line
    assert sync(tmp_path / "none") == 2
    assert capsys.readouterr().err == (
        f"routerbench: --results={tmp_path / 'none'} is no folder: give that which holds runs/\n"
    )


def test_a_mirrored_run_that_goes_on_is_one_run_and_equal_to_its_record(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, settings = tmp_path / "runs" / "a0", {**SETTINGS, "seed": 0}
    folder.mkdir(parents=True)

    def add(mirrored: Mirror, *rows: dict[str, Any]) -> None:
        for row in rows:
            append_row(folder / "metrics.jsonl", row)
            mirrored.log(row)

    first, second, third = ({"step": step, "train/loss": float(step)} for step in (1, 2, 3))
    with mirror(folder, "a0", group_id(settings), settings, "online") as mirrored:
        add(mirrored, first, second, third)
    (run,) = server.runs.values()
    assert curve(run) == [(1, 1.0, None), (2, 2.0, None)]  # there may be more of the third step
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    with mirror(folder, "a0", group_id(settings), settings, "online") as mirrored:
        (folder / "metrics.jsonl").write_text(lines[0])  # a checkpoint
        add(mirrored, second, third, {"step": 3, "test/top1": 0.5})
        record = {"run_id": "a0", "status": "done", "metrics": {"test/top1": 0.5}, "config": settings}
        write_record(folder, record)
        mirrored.keep(record)
    (run,) = server.runs.values()
    assert curve(run) == [(1, 1.0, None), (2, 2.0, None), (3, 3.0, 0.5)]
    server.requests.clear()
    assert sync(tmp_path) == 0
    assert (capsys.readouterr().out, server.changes()) == ("1 equal\n", [])


def test_offline_folders_of_runs_that_are_sent_are_taken_away(server: Any, tmp_path: Path) -> None:
    sent, going = (add_run(tmp_path, name) / "wandb" / "offline-run-1" for name in ("a0", "a1"))
    for folder in (sent, going):
        folder.mkdir(parents=True)
    (tmp_path / "runs" / "a1" / "record.json").unlink()
    assert sync(tmp_path) == 0
    assert (sent.exists(), going.exists()) == (False, True)
