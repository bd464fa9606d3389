"""Launchers and sweepers that are extras, where they are installed."""

import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

VIT = "+model.arguments={depth:2,embed_dim:16,num_heads:2}"
DATA = ("data=digits", "augment=none", "epochs=1", "batch_size=256")
INSTALLED = {each.name for each in distributions()}
TINY = (*DATA, VIT, "num_experts=4", "runtime.threads=1", "runtime.backend=bmm", "runtime.wandb=disabled")


def sweep(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """A sweep that has ended."""
    return subprocess.run(
        [sys.executable, "-m", "routerbench", "train", "-m", *TINY, *words],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "RAY_AUTH_MODE": "disabled"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def swept(folder: Path, *words: str) -> tuple[list[str], list[float]]:
    """The last lines of a sweep that is done, and the accuracies in its records."""
    done = sweep(folder, *words)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in folder.glob("results/runs/*/record.json")]
    return done.stdout.splitlines(), [record["metrics"]["test/top1"] for record in records]


@pytest.mark.skipif("hydra-ray-launcher" not in INSTALLED, reason="ray is not installed")
def test_ray(tmp_path: Path) -> None:
    words = ("router=soft,hash", "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2")
    lines, accuracies = swept(tmp_path, *words)
    assert "2 done" in lines  # Ray passes on what jobs print a little later
    assert len(accuracies) == 2


@pytest.mark.skipif("hydra-optuna-sweeper" not in INSTALLED, reason="optuna is not installed")
def test_optuna_is_told_the_accuracy_of_each_trial(tmp_path: Path) -> None:
    searched = ("router=soft", "optim.lr=tag(log,interval(1e-4,1e-2))", "hydra/sweeper=optuna")
    settings = ("direction=maximize", "n_trials=3", "n_jobs=1", "sampler.seed=0")
    lines, accuracies = swept(tmp_path, *searched, *(f"hydra.sweeper.{word}" for word in settings))
    assert lines[-1] == "3 done"
    assert len(accuracies) == 3
    (summary,) = tmp_path.rglob("optimization_results.yaml")
    assert f"best_value: {max(accuracies)}" in summary.read_text()


@pytest.mark.skipif("hydra-optuna-sweeper" not in INSTALLED, reason="optuna is not installed")
def test_a_trial_that_fails_ends_no_other_and_is_named(tmp_path: Path) -> None:
    searched = ("router=soft", "optim.lr=choice(1e12,1e-3)", "hydra/sweeper=optuna")
    settings = ("direction=maximize", "n_trials=2", "n_jobs=1")
    words = (*searched, "hydra/sweeper/sampler=grid", *(f"hydra.sweeper.{word}" for word in settings))
    done = sweep(tmp_path, *words)
    assert done.returncode == 1, done.stderr
    counts, diverged = done.stdout.splitlines()[-2:]
    assert counts == "1 done, 1 diverged"
    assert diverged.startswith("diverged: results/runs/")
