"""A sweep of six runs is disturbed; started again, it ends with the right states, and nothing was lost."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from routerbench.records import read_record

if TYPE_CHECKING:
    from tests.sweep.failures.conftest import Ended, Trial


NUM_STEPS, RAISES, DIVERGES = 5, 10, 11  # of a run; seeds
STATES = dict.fromkeys(range(6, 10), "done") | {RAISES: "failed", DIVERGES: "diverged"}
STEPS = dict.fromkeys(range(6, 10), NUM_STEPS) | {RAISES: 2}  # that of the other does not come to its end


def records(results: Path) -> dict[int, dict[str, Any]]:
    """By seed, of the runs that are over."""
    found = [read_record(folder) for folder in (results / "runs").iterdir()]
    return {record["config"]["seed"]: record for record in found if record is not None}


def rows(results: Path, run_id: str) -> list[dict[str, Any]]:
    """Those of `metrics.jsonl`."""
    lines = (results / "runs" / run_id / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def check_end(trial: "Trial", ended: "Ended") -> None:
    """Every state is right and said, every row there once, every process gone."""
    found = records(trial.results)
    assert {seed: record["status"] for seed, record in sorted(found.items())} == STATES, ended
    names = [f"{trial.results}/runs/{found[seed]['run_id']}" for seed in (RAISES, DIVERGES)]
    assert ended.code == 1, ended
    assert ended.lines[-3:-1] == ["4 done, 1 failed, 1 diverged", f"failed: {names[0]}  RuntimeError: boom"]
    assert ended.lines[-1].startswith(f"diverged: {names[1]}  the loss is nan"), ended
    for seed in range(6, 10):
        steps = [row["step"] for row in rows(trial.results, found[seed]["run_id"]) if "train/loss" in row]
        assert steps == list(range(1, NUM_STEPS + 1))
    assert not list(trial.folder.rglob("multirun*"))
    trial.wait_until_gone()


def metrics(trial: "Trial") -> dict[int, dict[str, float]]:
    """What was found, by seed."""
    return {seed: record["metrics"] for seed, record in records(trial.results).items()}


def repeated(trial: "Trial") -> int:
    """How many steps were taken again."""
    steps = trial.steps()
    assert all(steps[seed] >= number for seed, number in STEPS.items())
    return sum(steps.values()) - sum(STEPS.values())


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something is mounted on a folder; skips the test where that is not allowed."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; gives back the file to remove."""
    ballast, free = disk / "ballast", os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
    return ballast


def test_left_alone(undisturbed: "tuple[Trial, Ended]") -> None:
    trial, ended = undisturbed
    check_end(trial, ended)
    assert repeated(trial) == 0
    check_end(trial, trial.start().end())
    assert repeated(trial) == 0


def test_a_worker_is_killed(trial: "Trial", undisturbed: "tuple[Trial, Ended]") -> None:
    trial.hold()
    command = trial.start()
    os.kill(trial.held(2)[0], signal.SIGKILL)
    trial.release()
    check_end(trial, command.end())
    assert metrics(trial) == metrics(undisturbed[0])
    assert repeated(trial) <= 2  # the pool ends with its worker


@pytest.mark.parametrize("clock_set_back_by_hours", [0, pytest.param(24, marks=pytest.mark.slow)])
def test_the_command_is_killed(
    trial: "Trial", undisturbed: "tuple[Trial, Ended]", clock_set_back_by_hours: int
) -> None:
    trial.hold()
    command = trial.start()
    trial.held(2)
    command.process.kill()
    trial.release()
    trial.wait_until_gone()
    seen_as = time.time() + 3600 * clock_set_back_by_hours
    for path in trial.results.rglob("*"):
        os.utime(path, (seen_as, seen_as))
    check_end(trial, trial.finish())
    assert metrics(trial) == metrics(undisturbed[0])
    assert repeated(trial) <= 2


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 75), pytest.param("SIGINT", 130, marks=pytest.mark.slow)]
)
def test_the_command_is_stopped(
    trial: "Trial", undisturbed: "tuple[Trial, Ended]", name: str, code: int
) -> None:
    trial.hold()
    command = trial.start()
    trial.held(2)
    command.process.send_signal(signal.Signals[name])
    trial.release()
    stopped = command.end()
    assert stopped.code == code, stopped
    interrupted = [line for line in stopped.lines if line.startswith("interrupted: ")]
    assert all(f"stopped by {name} at step " in line for line in interrupted), stopped  # if not over before
    assert any(line.startswith("missing: ") for line in stopped.lines), stopped
    assert f"stopped by {name}: the same command goes on with what is not done" in stopped.errors.splitlines()
    trial.wait_until_gone()
    check_end(trial, trial.finish())
    assert metrics(trial) == metrics(undisturbed[0])
    assert repeated(trial) == 0


@pytest.mark.slow
def test_the_disk_is_full(trial: "Trial", undisturbed: "tuple[Trial, Ended]") -> None:
    with mounted(trial.results, "-t", "tmpfs", "-o", "size=32m", "none"):
        trial.hold()
        command = trial.start()
        trial.held(2)
        ballast = fill(trial.results)
        trial.release()
        stopped = command.end()
        assert stopped.code == 1, stopped  # a scheduler need not start it again
        assert sum("No space left on device" in line for line in stopped.errors.splitlines()) == 6, stopped
        assert records(trial.results) == {}
        trial.wait_until_gone()
        ballast.unlink()
        check_end(trial, trial.finish())
        assert metrics(trial) == metrics(undisturbed[0])


@pytest.mark.slow
def test_the_folder_is_read_only(trial: "Trial", undisturbed: "tuple[Trial, Ended]") -> None:
    trial.hold()
    command = trial.start()
    trial.held(2)
    read_only = ("-o", "bind,ro", str(trial.results))
    with mounted(trial.results, *read_only):  # what is opened from now on
        trial.release()
        stopped = command.end()
        assert stopped.code == 1, stopped
        assert sum("Read-only file system" in line for line in stopped.errors.splitlines()) == 6, stopped
        assert records(trial.results) == {}
        trial.wait_until_gone()
        refused = trial.start().end()
        assert (refused.code, refused.lines) == (2, []), refused
    check_end(trial, trial.finish())
    assert metrics(trial) == metrics(undisturbed[0])


@pytest.mark.slow
def test_two_sweeps_at_once(trial: "Trial", undisturbed: "tuple[Trial, Ended]") -> None:
    trial.hold()
    commands = [trial.start(), trial.start()]
    trial.held(4)
    trial.release()
    codes = [command.end().code for command in commands]
    assert set(codes) <= {1, 75}
    check_end(trial, trial.finish())
    assert metrics(trial) == metrics(undisturbed[0])
    assert repeated(trial) == 0
