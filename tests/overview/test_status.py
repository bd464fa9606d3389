"""How runs stand: counts, reasons, progress and the latest results, once and live."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from routerbench import cli
from routerbench.ledger.entry import Entry
from routerbench.ledger.ledger import Standing
from routerbench.overview import show_status
from routerbench.overview.show_status import lines, show_live, tracebacks
from routerbench.overview.status import TAIL_BYTES, Status, progress_of
from routerbench.records import append_row
from routerbench.refusal import say
from routerbench.sweep.named import MOST_NAMED, bounded, run_line

WriteRun = Callable[..., Path]
ENTRY = Entry(
    run_id="a",
    group="a",
    twin="t",
    seed=0,
    status="done",
    error=None,
    top1=0.5,
    flops_per_image=1,
    params_total=1,
    num_images=1.0,
    train_seconds=1.0,
    device=None,
    num_processes=1,
    finished="2026-01-01T00:00:00.1+00:00",
    disk_bytes=1,
)
DONE = Standing("done", None, ENTRY)
MISSING, RUNNING = Standing("missing", None, None), Standing("running", "process 1 on far", None)
FAILED = Standing("failed", "RuntimeError: boom", replace(ENTRY, error="RuntimeError: boom"))


def status(**standings: Standing) -> Status:
    return Status(Path("results"), standings, ())


@pytest.fixture
def asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """A function that runs `routerbench status` with these words; its exit code and what it says."""

    def ask(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["routerbench", "status", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    return ask


@pytest.mark.parametrize(
    ("standings", "code"),
    [
        ({}, 0),
        ({"a": DONE}, 0),
        ({"a": DONE, "b": MISSING}, 75),
        ({"a": DONE, "b": RUNNING}, 75),
        ({"a": DONE, "b": FAILED}, 1),
        ({"a": MISSING, "b": FAILED}, 1),
    ],
)
def test_the_exit_code_says_what_came_of_them(standings: dict[str, Standing], code: int) -> None:
    assert status(**standings).exit_code == code


def test_what_is_not_done_has_a_line() -> None:
    assert list(lines(status(a=DONE, b=FAILED, c=MISSING), everything=False)) == [
        "results: 1 done, 1 failed, 1 missing",
        "failed: results/runs/b  RuntimeError: boom",
        "latest: 2026-01-01 00:00 UTC  top-1 50.0%  results/runs/a",
    ]
    assert list(lines(status(), everything=False)) == ["results: no runs"]


def test_what_others_wrote_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    escape = "\x1b]0;OWNED\x07\x1b[2J\n"
    bad = Standing("failed", escape, replace(ENTRY, run_id=escape, error=escape))
    done = Standing("done", None, replace(ENTRY, run_id=escape, finished=escape))
    shown = [*lines(status(**{escape: bad, "b": done}), everything=True), run_line(tmp_path, escape, bad)]
    assert len(shown) == 4
    assert all(line.isprintable() for line in shown)
    say(escape)
    assert capsys.readouterr().err == "\\x1b]0;OWNED\\x07\\x1b[2J\n\n"


def test_the_latest_five_are_shown_last_first() -> None:
    days = {
        f"run{day}": replace(ENTRY, run_id=f"run{day}", finished=f"2026-01-0{day}") for day in range(1, 8)
    }
    shown = status(**{name: Standing("done", None, entry) for name, entry in days.items()})
    assert [entry.run_id for entry in shown.recent()] == ["run7", "run6", "run5", "run4", "run3"]


def test_a_run_under_way_says_how_far_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "b"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("optim:\n  epochs: 7\nepochs: 5\nseed: 0\n")
    append_row(folder / "metrics.jsonl", {"step": 20, "epoch": 1, "train/loss": 2.0})
    append_row(folder / "metrics.jsonl", {"step": 40, "epoch": 1, "test/top1": 0.25})
    append_row(folder / "metrics.jsonl", {"step": 60, "epoch": 2, "train/loss": 1.5})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "epo')
    _, line = lines(Status(tmp_path, {"b": RUNNING}, ()), everything=False)
    news = "epoch 2/5  loss 1.500  top-1 25.0%  step 60"
    assert line == f"running: {folder}  {news}  process 1 on far"


@pytest.mark.parametrize("text", [None, "", "{", "[1]\n7\n", '{"step": 1}\n', "\x00\xff\n"])
def test_rows_that_tell_nothing_are_no_progress(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert progress_of(tmp_path) is None


def test_only_the_end_of_long_rows_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "test/top1": 0.5}\n')
    for step in range(2, 200):
        append_row(tmp_path / "metrics.jsonl", {"step": step, "epoch": 1, "padding": "x" * 1000})
    assert (tmp_path / "metrics.jsonl").stat().st_size > TAIL_BYTES
    progress = progress_of(tmp_path)
    assert progress is not None
    assert (progress.row["step"], progress.epochs) == (199, "?")
    assert "test/top1" not in progress.row


def test_it_is_live_until_all_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show_status, "REFRESH_SECONDS", 0.0)
    seen = iter([status(a=RUNNING), status(a=RUNNING), status(a=DONE)])
    console = Console(force_terminal=True, width=80)
    with console.capture() as captured:
        last = show_live(lambda: next(seen), False, console)
    assert last.counts == {"done": 1}
    assert "1 running" in captured.get()
    assert "1 done" in captured.get()


def test_ctrl_c_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", stop)
    console = Console(force_terminal=True, width=80)
    with console.capture():
        assert show_live(lambda: status(a=RUNNING), False, console).exit_code == 75


def test_many_lines_are_bounded() -> None:
    assert bounded([str(number) for number in range(20)]) == [str(number) for number in range(20)]
    assert bounded([str(number) for number in range(51)])[-2:] == ["19", "and 31 more: --all"]


def test_errors_are_shown_of_as_many_runs_as_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show_status, "read_record", lambda folder: {"error": "boom"})
    failed = status(**{f"run{number}": FAILED for number in range(MOST_NAMED + 1)})
    for everything, shown in ((False, MOST_NAMED), (True, MOST_NAMED + 1)):
        assert list(tracebacks(failed, everything)).count("boom") == shown


def test_the_command_shows_a_folder(
    asked: Callable[..., tuple[int, str, str]], results: Path, sweep_of: Any, write_run: WriteRun
) -> None:
    done, failed = sweep_of("router=dense", "seed=0,1").cells
    write_run(done, finished="2026-01-01T00:00:00.1+00:00")
    write_run(failed, status="failed", error="Traceback:\n  file\nRuntimeError: boom\n")
    code, out, err = asked("--results", results)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"{results}: 1 done, 1 failed",
        f"failed: {results}/runs/{failed.run_id}  RuntimeError: boom",
        f"latest: 2026-01-01 00:00 UTC  top-1 50.0%  {results}/runs/{done.run_id}",
    ]
    _, out, _ = asked("--results", results, "--failed")
    assert out.endswith(f"\n\n{results}/runs/{failed.run_id}\nTraceback:\n  file\nRuntimeError: boom\n")
    told: dict[str, Any] = json.loads(asked("--results", results, "--json")[1])
    assert told["counts"] == {"done": 1, "failed": 1}
    assert [one["run_id"] for one in told["runs"]] == [failed.run_id]
    assert [one["run_id"] for one in told["latest"]] == [done.run_id]


def test_the_command_shows_a_sweep_alone(
    asked: Callable[..., tuple[int, str, str]], results: Path, sweep_of: Any, write_run: WriteRun
) -> None:
    cell, other = sweep_of("router=dense", "seed=0,1").cells
    write_run(cell)
    write_run(other, status="failed", error="boom")
    words = [word for word in cell.words if not word.startswith(("seed=", "runtime."))]
    code, out, _ = asked(*words, "seed=0,2", "--results", results)
    assert code == 75
    assert out.splitlines()[0] == f"{results}: 1 done, 1 missing"
    assert other.run_id not in out


def test_a_folder_that_is_not_there_is_refused(asked: Callable[..., tuple[int, str, str]]) -> None:
    line = "routerbench: results=nowhere is not a folder: give the one that holds runs/\n"
    assert asked("--results", "nowhere") == (2, "", line)
