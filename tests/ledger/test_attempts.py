"""One process at a time owns a run, whatever dies, sleeps, or sets its clock."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from routerbench.ledger import attempts, owner, sighting
from routerbench.ledger.attempts import LostError, RunningError, claimed, latest
from routerbench.records import UnwritableError

# Claims every folder below the one it is given, in an order of its own, and says which it got.
RACER = """
import random, sys
from pathlib import Path
from contextlib import ExitStack
from routerbench.ledger.attempts import RunningError, claimed
folders = sorted(Path(sys.argv[1]).iterdir())
random.Random(sys.argv[2]).shuffle(folders)
print("ready", flush=True)
sys.stdin.readline()
with ExitStack() as stack:
    for folder in folders:
        try:
            stack.enter_context(claimed(folder))
        except RunningError:
            continue
        print(folder.name, flush=True)
    print("tried", flush=True)
    sys.stdin.readline()
"""
# Owns a run until its standard input has a line, and then writes a row if the run is still its own.
OWNER = """
import sys
from pathlib import Path
from routerbench.ledger import sighting
from routerbench.ledger.attempts import LostError, claimed
from routerbench.records import append_row
sighting.HEARTBEAT = 0.02
folder = Path(sys.argv[1])
try:
    with claimed(folder) as attempt:
        print("mine", flush=True)
        sys.stdin.readline()
        attempt.check()
        append_row(folder / "metrics.jsonl", {"step": 1})
except LostError as lost:
    print(lost, flush=True)
"""

# Owns a run and forks a process, as a data loader does, which goes on when its parent is killed.
PARENT = """
import os, sys, time
from pathlib import Path
from routerbench.ledger.attempts import claimed
with claimed(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # by now it has let go of the run
        time.sleep(600)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sighting, "HEARTBEAT", 0.02)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is on another host than those that it starts."""
    monkeypatch.setattr(owner, "this_system", lambda: ("elsewhere", "another boot"))
    monkeypatch.setattr(sighting, "this_system", lambda: ("elsewhere", "another boot"))


@contextmanager
def started(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this program, which has said its first line."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program, *words], **pipes) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("own_boot", "host", "boot", "same"),
    [
        ("1", "b", "1", True),  # a container of the same system
        ("1", "a", "2", False),  # started anew since
        ("1", "a", "", True),  # where no boot has an id, the name of the host decides
        ("1", "b", "", False),
        ("", "a", "1", True),
        ("", "b", "1", False),
    ],
)
def test_an_owner_is_of_the_system_that_knows_its_locks(
    own_boot: str, host: str, boot: str, same: bool
) -> None:
    begun = owner.Owner("a", own_boot, pid=7, started="2026-01-01", locked=True)
    assert begun.is_of(host, boot) == same


def on(process: subprocess.Popen[str]) -> None:
    """Give the process its line."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def written(folder: Path, number: int = 1) -> dict[str, Any]:
    return json.loads((folder / "attempts" / f"{number:04}.json").read_text())


def numbers(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "attempts").iterdir())


def set_heartbeat(folder: Path, seconds_from_now: float) -> None:
    found = latest(folder)
    assert found is not None
    when = time.time() + seconds_from_now
    os.utime(found.path, (when, when))


def test_an_attempt_says_who_made_it_and_how_it_ended(tmp_path: Path) -> None:
    with claimed(tmp_path / "runs" / "a"):
        mine = written(tmp_path / "runs" / "a")
        assert (mine["host"], mine["pid"], mine["ended"]) == (os.uname().nodename, os.getpid(), None)
        assert str(latest(tmp_path / "runs" / "a")).startswith(
            f"process {os.getpid()} on {mine['host']}, heard"
        )
    after = written(tmp_path / "runs" / "a")
    assert after == mine | {"ended": after["ended"]}
    assert after["ended"] > after["started"]


def test_a_run_has_one_owner_until_its_block_ends(tmp_path: Path) -> None:
    with claimed(tmp_path):
        with pytest.raises(
            RunningError, match=rf"^is run by process {os.getpid()} on .*, heard of \d s ago$"
        ):
            claimed(tmp_path).__enter__()
        with pytest.raises(RunningError):
            attempts.refuse_running(tmp_path)
    attempts.refuse_running(tmp_path)
    with claimed(tmp_path):
        assert numbers(tmp_path) == ["0001.json", "0002.json"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError("a disk is full\nat the end"), "a disk is full"),
        (RuntimeError("ü" * 9999), "ü" * 240),
    ],
)
def test_an_error_is_the_reason_of_the_end(tmp_path: Path, error: BaseException, reason: str) -> None:
    with pytest.raises(type(error)), claimed(tmp_path):
        raise error
    assert written(tmp_path)["reason"] == reason
    found = latest(tmp_path)
    assert found is not None
    assert (str(found), found.is_dead()) == (reason, True)
    assert found.path.stat().st_size == owner.ROOM  # no more than at the start


def test_of_many_processes_each_run_has_one_owner(tmp_path: Path) -> None:
    folders = [tmp_path / f"{number}" for number in range(20)]
    for folder in folders:
        folder.mkdir()
    race(tmp_path, folders)
    assert {tuple(numbers(folder)) for folder in folders} == {("0001.json",)}


def test_of_many_that_take_over_from_the_dead_one_wins(tmp_path: Path) -> None:
    folders = [tmp_path / f"{number}" for number in range(20)]
    for folder in folders:
        folder.mkdir()
    with started(RACER, str(tmp_path), "0") as first:
        on(first)
        while said(first) != "tried":
            pass
        first.kill()
        first.wait()
    assert {str(latest(folder)) for folder in folders} == {
        f"process {first.pid} on {os.uname().nodename} is gone"
    }
    race(tmp_path, folders)
    assert {tuple(numbers(folder)) for folder in folders} == {("0001.json", "0002.json")}


def race(root: Path, folders: list[Path]) -> None:
    """Let eight processes claim all folders at once; each gets one owner."""
    contexts = [started(RACER, str(root), str(seed)) for seed in range(8)]
    racers = [context.__enter__() for context in contexts]
    for racer in racers:
        on(racer)
    won: list[str] = []
    for racer in racers:
        while (name := said(racer)) != "tried":
            won.append(name)
    for context in contexts:
        context.__exit__(None, None, None)
    assert sorted(won) == sorted(folder.name for folder in folders)


def test_a_killed_owner_is_gone_at_once(tmp_path: Path) -> None:
    with started(OWNER, str(tmp_path)) as other:
        set_heartbeat(tmp_path, 1e6)
        with pytest.raises(RunningError, match=f"is run by process {other.pid} on "):
            claimed(tmp_path).__enter__()
        other.kill()
        other.wait()
    set_heartbeat(tmp_path, 1e6)  # whatever the clock says
    with claimed(tmp_path):
        assert numbers(tmp_path) == ["0001.json", "0002.json"]


def test_an_owner_is_gone_while_a_process_that_it_forked_lives(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        child = int(said(parent))
        try:
            with pytest.raises(RunningError):
                claimed(tmp_path).__enter__()
            parent.kill()
            parent.wait()
            os.kill(child, 0)
            assert str(latest(tmp_path)).endswith(" is gone")
            with claimed(tmp_path):
                assert numbers(tmp_path) == ["0001.json", "0002.json"]
        finally:
            os.kill(child, signal.SIGKILL)


def test_what_was_forked_during_an_attempt_takes_nothing_from_the_next(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path):
            child = os.fork()
            if child == 0:
                os._exit(len(attempts._held))  # none is left
            assert os.waitpid(child, 0)[1] == 0
            with pytest.raises(RunningError):
                claimed(tmp_path).__enter__()
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_suspended_owner_is_alive_on_its_host(tmp_path: Path) -> None:
    with started(OWNER, str(tmp_path)) as other:
        other.send_signal(signal.SIGSTOP)
        set_heartbeat(tmp_path, -1e6)
        with pytest.raises(RunningError):
            claimed(tmp_path).__enter__()


@pytest.mark.parametrize("clock", [-1e6, 1e6])
@pytest.mark.usefixtures("elsewhere")
def test_a_suspended_owner_that_was_taken_over_writes_nothing(tmp_path: Path, clock: float) -> None:
    with started(OWNER, str(tmp_path)) as other:
        other.send_signal(signal.SIGSTOP)
        set_heartbeat(tmp_path, clock)
        with claimed(tmp_path) as attempt:
            other.send_signal(signal.SIGCONT)
            on(other)
            text = rf"the run was taken from process {other.pid} on .* by process {os.getpid()} on elsewhere"
            assert re.fullmatch(text, said(other))
            attempt.check()
        other.wait()
    assert not (tmp_path / "metrics.jsonl").exists()
    assert numbers(tmp_path) == ["0001.json", "0002.json"]


@pytest.mark.parametrize("clock", [-1e6, 1e6])
@pytest.mark.usefixtures("elsewhere")
def test_no_clock_takes_a_run_from_who_lives_on_another_host(
    tmp_path: Path, clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sighting, "HEARTBEAT", 5.0)  # of this process, which watches for two at the most
    with started(OWNER, str(tmp_path)) as other:
        set_heartbeat(tmp_path, clock)
        with pytest.raises(RunningError):
            claimed(tmp_path).__enter__()
        on(other)
        other.wait()
    assert (tmp_path / "metrics.jsonl").exists()


@pytest.mark.usefixtures("elsewhere")
def test_a_late_heartbeat_is_awaited_only_where_it_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sighting, "HEARTBEAT", 1e6)
    with started(OWNER, str(tmp_path)) as other:
        other.send_signal(signal.SIGSTOP)
        set_heartbeat(tmp_path, -3)
        with pytest.raises(RunningError, match=r"heard of [3-9] s ago$"):
            claimed(tmp_path).__enter__()


@pytest.mark.usefixtures("elsewhere")
def test_who_has_ended_on_another_host_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(OWNER, str(tmp_path)) as other:
        on(other)
        other.wait()
    monkeypatch.setattr(sighting, "HEARTBEAT", 1e6)
    with claimed(tmp_path):
        pass


def test_without_locks_heartbeats_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with claimed(tmp_path):
        assert not written(tmp_path)["locked"]
        set_heartbeat(tmp_path, -1e6)
        with pytest.raises(RunningError):
            claimed(tmp_path).__enter__()


def test_one_that_could_not_lock_is_not_dead_where_another_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_lock", lambda descriptor: False)
    with claimed(tmp_path), pytest.raises(RunningError):
        claimed(tmp_path).__enter__()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "far"}'])
def test_a_file_that_its_owner_is_writing_belongs_to_it_for_a_while(tmp_path: Path, content: str) -> None:
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "0001.json").write_text(content)
    text = r"^is run by a process that has not signed its attempt, heard of \d s ago$"
    with pytest.raises(RunningError, match=text):
        claimed(tmp_path).__enter__()
    set_heartbeat(tmp_path, -1e6)
    with claimed(tmp_path):
        assert numbers(tmp_path) == ["0001.json", "0002.json"]


def test_attempts_beyond_a_number_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "KEPT", 3)
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "notes.json").write_text("of somebody else")
    for _ in range(5):
        with claimed(tmp_path) as attempt:
            attempt.check()
    assert numbers(tmp_path) == ["0003.json", "0004.json", "0005.json", "notes.json"]


def test_a_run_whose_folder_was_removed_is_lost(tmp_path: Path) -> None:
    with claimed(tmp_path) as attempt:
        shutil.rmtree(tmp_path)
        with pytest.raises(LostError, match=r"with its folder$"):
            attempt.check()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no folder")
    text = f"^{tmp_path}/runs/a cannot be written: Not a directory$"
    with pytest.raises(UnwritableError, match=text), claimed(tmp_path / "runs" / "a"):
        pass


def test_an_attempt_that_cannot_be_signed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(UnwritableError, match=r"0001\.json cannot be written: No space left"):
            claimed(tmp_path).__enter__()
    assert numbers(tmp_path) == []
    with claimed(tmp_path):
        pass


def test_the_longest_reason_has_room_in_any_script(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), claimed(tmp_path):
        raise RuntimeError("\N{GRINNING FACE}" * 1000)
    found = latest(tmp_path)
    assert found is not None
    assert found.path.stat().st_size == owner.ROOM
    assert str(found) == "\N{GRINNING FACE}" * owner.LONGEST_REASON
