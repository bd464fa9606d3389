"""Cells in the processes of a launcher: what becomes of them, and in which order they are tried again."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from fork_server import PATIENCE_SECONDS, ForkServer
from PIL import Image

from routerbench.commands import train
from routerbench.compose import compose_sweep
from routerbench.ledger.ledger import Standing
from routerbench.parts.data import num_workers
from routerbench.sweep import launch, outcome
from routerbench.sweep.cores import check_cores, jobs_at_once
from routerbench.sweep.job import Job, NotDoneError
from routerbench.sweep.launchers import num_cores
from routerbench.sweep.stop import Stop

VIT = "+model.arguments={depth:2,embed_dim:16,num_heads:2}"
TINY = ("data=digits", "augment=none", "epochs=1", VIT, "num_experts=4", "runtime.wandb=disabled")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    path = sys.path.copy()
    yield
    sys.path[:] = path


def command(*words: str) -> list[str]:
    return ["-m", "routerbench", "train", *TINY, *words]


def statuses(folder: Path) -> Counter[str]:
    records = folder.glob("results/runs/*/record.json")
    return Counter(json.loads(path.read_text())["status"] for path in records)


@pytest.mark.skipif(num_cores() < 2, reason="two processes are refused on one core")
def test_cells_in_two_processes_have_image_files_decoded_by_others(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    for part in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (200 * number, 0, 0)).save(tmp_path / "images" / part / name / "1.png")
    words = ("data=folder", "data.path=images", "data.image_size=32", "batch_size=2", "router=soft")
    done = fork_server.run(*command("-m", *JOBLIB, "seed=0,1", *words, "runtime.workers=1"))
    assert (done.returncode, statuses(tmp_path)) == (0, {"done": 2}), done.stderr


def test_a_job_has_its_share_of_the_cores_for_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setenv("ROUTERBENCH_JOBS", "1")  # to be as before afterwards
    sweep = compose_sweep(["seed=0,1", *JOBLIB], None, multirun=True)
    at_once = jobs_at_once(sweep.hydra.hydra.launcher)
    stop = Stop(tmp_path, os.getpid())
    (tmp_path / "why").write_text("its command")
    for ranks, share in (("1", 6), ("2", 3), ("99", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        with pytest.raises(NotDoneError, match="stopped by its command"):
            Job({}, "", None, stop, at_once)(sweep.cells[0].config)
        assert num_workers() == share


def wait_for(there: Any) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_that_submitit_warns_is_put_back_and_goes_on(tmp_path: Path, fork_server: ForkServer) -> None:
    words = command("hydra/launcher=submitit_local", "epochs=30", "runtime.log_every_steps=1")
    process = fork_server.start(*words)
    wait_for(lambda: list(tmp_path.glob("results/runs/*/metrics.jsonl")))
    (attempt,) = tmp_path.glob("results/runs/*/attempts/*.json")
    os.kill(json.loads(attempt.read_text())["pid"], signal.SIGUSR2)
    ended = process.end()
    assert (ended.returncode, ended.stdout) == (0, "1 done\n")
    (record,) = tmp_path.glob("results/runs/*/record.json")
    assert json.loads(record.read_text())["provenance"]["restarts"] == 1


def test_a_cell_of_two_processes_is_a_torchrun_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.train(["-m", *TINY, "router=token_choice", "seed=range(1)", "parallel.data=2"]) == 0
    shown = capfd.readouterr()
    assert shown.out.splitlines()[-1] == "1 done"
    assert any(line.endswith("  2 processes") for line in shown.out.splitlines())
    (record,) = tmp_path.glob("results/runs/*/record.json")
    assert json.loads(record.read_text())["provenance"]["parallel"]["data"] == 2


class Launcher:
    """Runs no cell; a pool that breaks with each of `killers`."""

    def __init__(self, killers: set[str], states: dict[str, str]) -> None:
        self.killers, self.states = killers, states
        self.batches: list[list[str]] = []

    def launch(self, words: list[list[str]], initial_job_idx: int) -> list[Any]:
        seeds = [word for cell in words for word in cell if word.startswith("seed=")]
        self.batches.append(seeds)
        for seed in seeds:
            if seed in self.killers:
                self.states |= dict.fromkeys(seeds[seeds.index(seed) :][:2], "interrupted")
                raise BrokenProcessPool("killed")
            self.states[seed] = "done"
        return []


@pytest.mark.parametrize(
    ("killers", "batches"),
    [
        (set(), [["0", "1", "2", "3"]]),
        # 1 takes 2 with it each time they are together; 3, which had not begun, comes first.
        ({"1"}, [["0", "1", "2", "3"], ["3"], ["1", "2"], ["1"], ["2"]]),
    ],
)
def test_what_a_death_leaves_is_launched_again(
    killers: set[str],
    batches: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = compose_sweep(["seed=0,1,2,3"], None, multirun=True)
    states: dict[str, str] = {}
    launcher = Launcher({f"seed={killer}" for killer in killers}, states)

    def standings(cells: Any) -> list[Any]:
        found = [states.get(f"seed={cell.config.seed}", "missing") for cell in cells]
        return [Standing(state, None, None) for state in found]

    monkeypatch.setattr(outcome, "standings", standings)
    monkeypatch.setattr(launch, "standings", standings)
    monkeypatch.setattr(launch, "_launcher", lambda sweep, job: Opened(launcher))
    each_could_be = launch.launch(sweep, sweep.cells, Job({}, "", None, None))
    assert launcher.batches == [[f"seed={seed}" for seed in batch] for batch in batches]
    assert each_could_be == (not killers)
    given_up = [line for line in capsys.readouterr().err.splitlines() if "given up" in line]
    assert given_up == [
        f"cell {int(killer) + 1} of 4 (seed={killer}): its process was killed 3 times: it is given up"
        for killer in killers
    ]


class Opened:
    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def __enter__(self) -> Launcher:
        return self.launcher

    def __exit__(self, *_: object) -> None:
        return None


def test_more_threads_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    sweep = compose_sweep(["seed=0,1", "runtime.threads=2", *JOBLIB], None, multirun=True)
    text = (
        "hydra.launcher.n_jobs=2 with runtime.threads=2 is 4 threads at once for 2 cores: give less of one "
        "of them"
    )
    with pytest.raises(ValueError, match=f"^{text}$"):
        check_cores(sweep.hydra.hydra.launcher, sweep.cells)
    for cell in sweep.cells:
        cell.config.runtime.threads = None  # each has its share
    check_cores(sweep.hydra.hydra.launcher, sweep.cells)


def test_a_rank_never_runs_the_sweep_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert train.train(["-m", *TINY, *JOBLIB, "seed=0,1"]) == 2
    assert capsys.readouterr().err == (
        "routerbench: hydra/launcher=joblib is not for torchrun, for a rank never runs the sweep again: "
        "leave one of them out (parallel.* starts a torchrun by itself)\n"
    )


def test_a_launcher_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins")
    assert train.train(["-m", "seed=0,1", "hydra/launcher=ray"]) == 2
    assert capsys.readouterr().err == (
        "routerbench: hydra/launcher=ray is an extra that is not installed: pip install 'routerbench[ray]'\n"
    )
