"""From images to a leaderboard in seconds, by the two commands of a user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from routerbench import read_records

WORDS = (
    "data=digits",
    "augment=none",
    "epochs=3",
    "batch_size=32",
    "optim.lr=0.003",
    "+model.arguments={patch_size:16,depth:2,embed_dim:32,num_heads:2}",
    "num_experts=4",
    "runtime.threads=1",
)
ROUTERS = ("dense", "soft")


def routerbench(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it, and not as a copy of a process that has all imports."""
    command = [sys.executable, "-W", "error::UserWarning:routerbench", "-m", "routerbench", *words]
    # Without the W&B settings of the user, and its process that earlier tests may have started.
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=env)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with two seeds of two routers, and what their training showed."""
    folder = tmp_path_factory.mktemp("walk")
    done = routerbench("train", "-m", *WORDS, f"router={','.join(ROUTERS)}", "seed=0,1", folder=folder)
    return folder, done


def test_a_multirun_trains_every_cell_and_shows_it(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    done = trained[1]
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == "4 done"
    assert [line.split("  ")[:2] for line in lines] == [
        [f"[{number}/4] router={name} seed={seed}", f"epoch {epoch}/3"]
        for number, (name, seed) in enumerate(((name, seed) for name in ROUTERS for seed in (0, 1)), 1)
        for epoch in range(1, 4)
    ]


def test_every_router_has_learnt(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    frame = read_records(trained[0] / "results")
    assert sorted(frame["config.router.name"]) == sorted([*ROUTERS, *ROUTERS])
    assert set(frame["status"]) == {"done"}
    assert frame["metrics.test/top1"].min() > 0.5  # chance is 0.1
    seeds = frame.set_index(["config.router.name", "config.seed"])["metrics.test/top1"]
    assert all(seeds[router, 0] != seeds[router, 1] for router in ROUTERS)


def test_wandb_has_a_mirror_of_every_run(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    records = list(trained[0].glob("results/runs/*/record.json"))
    mirrors = list(trained[0].glob("results/runs/*/wandb/offline-run-*/run-*.wandb"))
    assert {path.stem.removeprefix("run-") for path in mirrors} == {path.parent.name for path in records}
    assert len(records) == 4


def test_the_report_makes_a_board_of_the_records(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder = trained[0]
    done = routerbench("report", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    board = pd.read_csv(folder / "results" / "leaderboard.csv").set_index("router")
    assert set(board.index) == set(ROUTERS)
    assert board.index[0] == "dense"
    assert set(board["done"]) == {2}
    for name in ROUTERS:
        top1 = [
            json.loads(path.read_text())["metrics"]["test/top1"]
            for path in folder.glob(f"results/runs/digits-pocket_vit-{name}-s*/record.json")
        ]
        assert board.loc[name, "score_mean"] == pytest.approx(sum(top1) / 2)
        assert name in done.stdout
    assert "soft" in (folder / "results" / "LEADERBOARD.md").read_text()
