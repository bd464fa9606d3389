"""Many processes find what one does, in every layout; a run can be killed, and goes on in another layout."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from routerbench.build import router_names
from routerbench.commands import train as train_command

TESTS = Path(__file__).parent
NUM_STEPS = 20  # of a curve; a checkpoint is in its middle
# A parameter without axes, a buffer that changes, and losses of the router.
SOME = "soft,sigmoid_bias,token_choice"
STAGES = (
    "1:1,1,1",
    f"2:2,1,1;1,1,2/{SOME};1,2,1/{SOME}",
    f"4:2,1,2/{SOME};4,1,1/soft;2,2,1/soft",
    "1:1,1,1/soft",
)
MANY = ("2,1,1", "1,1,2", "1,2,1", "2,1,2", "4,1,1", "2,2,1")

Found = dict[str, Any]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Start a command, and wait for its end."""
    package = {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*map(str, words)], env={**os.environ, **package}, capture_output=True, text=True, timeout=500
    )


def launch(num_ranks: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Start a file or a module as so many processes, by torchrun."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return run(*torchrun, f"--nproc-per-node={num_ranks}", *words)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """By layout what one process finds, and two, and four; as `again` what one finds after all of them."""
    file = tmp_path_factory.mktemp("found") / "found.json"
    done = run(sys.executable, TESTS / "rank_steps.py", file, *STAGES)
    assert done.returncode == 0, done.stderr
    one, two, four, again = json.loads(file.read_text())
    return one | two | four | {"again": again["1,1,1"]}


@pytest.mark.parametrize("layout", MANY)
def test_the_curves_of_routers_are_those_of_one_process(found: Found, layout: str) -> None:
    for router, curve in found[layout]["curves"].items():
        of_one = found["1,1,1"]["curves"][router]
        assert len(curve) == len(of_one) == NUM_STEPS + 1  # and the averaged weights
        for step, expected in zip(curve, of_one, strict=True):
            assert step == pytest.approx(expected, rel=0, abs=1e-5), router


def test_all_routers_were_trained(found: Found) -> None:
    for layout in ("1,1,1", "2,1,1"):
        assert list(found[layout]["curves"]) == router_names()
    for layout in ("1,1,2", "1,2,1", "2,1,2"):
        assert list(found[layout]["curves"]) == SOME.split(",")


@pytest.mark.parametrize("layout", MANY)
def test_evaluation_counts_every_image_once(found: Found, layout: str) -> None:
    evaluations, of_one = found[layout]["evaluations"], found["1,1,1"]["evaluations"]
    assert [len(each["correct"]) for each in of_one[::3]] == [7, 2, 9]
    for evaluation, expected in zip(evaluations, of_one, strict=True):
        assert evaluation.keys() == expected.keys()
        for name, value in evaluation.items():
            assert_equal(value, expected[name])


def assert_equal(value: Any, expected: Any) -> None:
    """Of numbers and lists of lists of them."""
    if isinstance(value, list):
        for one, its in zip(value, expected, strict=True):
            assert_equal(one, its)
    else:
        assert value == pytest.approx(expected, abs=1e-6, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("layout", [*MANY, "again"])
def test_a_run_goes_on_in_another_layout(found: Found, layout: str) -> None:
    for kept, curve in found[layout]["goes on"].items():
        of_one = found["1,1,1"]["curves"][kept.partition(" ")[2]]
        assert len(curve) == 3
        for step, expected in zip(curve, of_one[NUM_STEPS // 2 :], strict=False):
            assert step == pytest.approx(expected, rel=0, abs=1e-5), kept


def test_checkpoints_of_all_layouts_were_gone_on_from(found: Found) -> None:
    def kept(layout: str) -> set[str]:
        return {name.partition(" ")[0] for name in found[layout]["goes on"]}

    one, two, four = {"1,1,1"}, set(MANY[:3]), set(MANY[3:])
    assert all(kept(layout) == one for layout in two)
    assert all(kept(layout) == one | two for layout in four)
    assert kept("again") == one | two | four


# 22 steps of a small ViT on the digits.
TINY = (
    "data=digits",
    "augment=crop_flip",
    "epochs=1",
    "router=token_choice",
    "+model.arguments.depth=2",
    "+model.arguments.embed_dim=16",
    "+model.arguments.num_heads=2",
    "num_experts=4",
    "optim.accumulation_steps=2",
    "mix.mixup_alpha=0.8",
    "ema.decay=0.9",
    "runtime.device=cpu",
    "runtime.wandb=disabled",
    "runtime.workers=0",
    "runtime.threads=1",
    "runtime.backend=bmm",
    "runtime.log_every_steps=1",
    "runtime.checkpoint_every_steps=4",
)


def train(num_ranks: int, results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return launch(num_ranks, "-m", "routerbench", "train", *TINY, f"runtime.results={results}", *words)


def interrupted(
    num_ranks: int, results: Path, rank: int, step: int, how: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """The same, of which one rank ends before a step."""
    command = (TESTS / "rank_train.py", rank, step, how, "train", *TINY, f"runtime.results={results}", *words)
    return launch(num_ranks, *command)


def folder_of(results: Path) -> Path:
    (folder,) = (results / "runs").iterdir()
    return folder


def record_of(results: Path) -> dict[str, Any]:
    return json.loads((folder_of(results) / "record.json").read_text())


def rows_of(results: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder_of(results) / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(results: Path, of_one: Path) -> None:
    """Rows, record, predictions and weights are those of one process."""
    for row, expected in zip(rows_of(results), rows_of(of_one), strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-5)
    folder, its = folder_of(results), folder_of(of_one)
    assert folder.name == its.name
    assert {path.name for path in folder.iterdir()} == {path.name for path in its.iterdir()}
    assert record_of(results)["status"] == "done"
    assert record_of(results)["metrics"] == pytest.approx(record_of(of_one)["metrics"], rel=1e-4, abs=1e-5)
    assert record_of(results)["cost"]["params_total"] == record_of(of_one)["cost"]["params_total"]
    assert np.array_equal(np.load(folder / "correct.npy"), np.load(its / "correct.npy"))
    for path in its.glob("*.safetensors"):  # of the model, and of its average
        weights, of_one_process = load_file(folder / path.name), load_file(path)
        assert weights.keys() == of_one_process.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(weight, of_one_process[name], rtol=0, atol=1e-3)


def test_a_run_that_is_interrupted_in_one_layout_goes_on_in_others(tmp_path: Path) -> None:
    results = tmp_path / "many"
    raised = interrupted(2, results, 1, 6, "raise", "parallel.data=2")
    assert raised.returncode != 0
    assert "one rank went wrong" in raised.stderr
    assert kept_in(results) == [4]
    killed = interrupted(2, results, 1, 10, "kill", "parallel.shard=2")
    assert killed.returncode != 0
    assert kept_in(results) == [4, 8]
    # A scheduler warns one rank, and all of them stop with the code of a requeue.
    warned = interrupted(2, results, 1, 13, "warn", "parallel.data=2")
    assert "stopped by SIGUSR1 at step 14, which is kept" in warned.stderr
    assert "exitcode  : 75" in warned.stderr  # torchrun tells it, and has one of its own
    assert kept_in(results) == [12, 14]
    # Nothing of this is an outcome.
    assert not (folder_of(results) / "record.json").exists()
    done = train(2, results, "parallel.expert=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 done") == 1
    assert record_of(results)["provenance"]["restarts"] == 3
    assert record_of(results)["provenance"]["parallel"] == {"data": 1, "shard": 1, "expert": 2}
    of_one = train(1, tmp_path / "one")
    assert of_one.returncode == 0, of_one.stderr
    assert_same_run(results, tmp_path / "one")


def kept_in(results: Path) -> list[int]:
    """The steps of the checkpoints."""
    return sorted(int(path.name[5:]) for path in (folder_of(results) / "checkpoint").glob("step-*"))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_is_wrong_is_said_by_one_rank(
    rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert train_command.train([f"runtime.results={tmp_path}", "parallel.data=4"]) == 2
    text = (
        "routerbench: parallel.data=4 parallel.shard=1 parallel.expert=1 needs WORLD_SIZE=4, which is 2: "
        "start torchrun --nproc-per-node 4 -m routerbench train ..., or give another layout\n"
    )
    assert capsys.readouterr().err == (text if rank == "0" else "")
    assert not list(tmp_path.iterdir())
