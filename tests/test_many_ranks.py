"""Many processes find what one does, in every layout; a run can be killed, and goes on in another layout."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import ForkServer
from safetensors.torch import load_file

from routerbench.build import router_names
from routerbench.commands import train as train_command

TESTS = Path(__file__).parent
# A parameter without axes, a buffer that changes, and losses of the router.
SOME = "soft,sigmoid_bias,token_choice"
TWO, FOUR = ("2,1,1", "1,1,2", "1,2,1"), ("2,1,2", "4,1,1", "2,2,1")

Found = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Curves of so many steps, with a checkpoint in their middle, in stages of `rank_steps`."""

    num_steps: int
    stages: tuple[str, ...]
    layouts: tuple[str, ...]


SMALL = Comparison(6, (f"1:1,1,1/{SOME}", f"2:2,1,1/{SOME};1,1,2/{SOME};1,2,1/{SOME}", "1:1,1,1/soft"), TWO)
WHOLE = Comparison(
    20,
    (
        "1:1,1,1",
        f"2:2,1,1;1,1,2/{SOME};1,2,1/{SOME}",
        f"4:2,1,2/{SOME};4,1,1/soft;2,2,1/soft",
        "1:1,1,1/soft",
    ),
    (*TWO, *FOUR),
)
COMPARED = [
    *[pytest.param(SMALL, layout, id=f"small {layout}") for layout in SMALL.layouts],
    *[pytest.param(WHOLE, layout, id=f"whole {layout}", marks=pytest.mark.slow) for layout in WHOLE.layouts],
]


@pytest.fixture(scope="module")
def find(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Comparison], Found]:
    """A function to what is found by layout; as `again` what one process finds after all of them."""

    @cache
    def find(compared: Comparison) -> Found:
        file = tmp_path_factory.mktemp("found") / "found.json"
        done = fork_server.run(TESTS / "rank_steps.py", file, compared.num_steps, *compared.stages)
        assert done.returncode == 0, done.stderr
        *found, again = json.loads(file.read_text())
        return {layout: of_layout for stage in found for layout, of_layout in stage.items()} | {
            "again": again["1,1,1"]
        }

    return find


Find = Callable[[Comparison], Found]


@pytest.mark.parametrize(("compared", "layout"), COMPARED)
def test_the_curves_of_routers_are_those_of_one_process(
    find: Find, compared: Comparison, layout: str
) -> None:
    found = find(compared)
    for router, curve in found[layout]["curves"].items():
        of_one = found["1,1,1"]["curves"][router]
        assert len(curve) == len(of_one) == compared.num_steps + 1  # and the averaged weights
        for step, expected in zip(curve, of_one, strict=True):
            assert step == pytest.approx(expected, rel=0, abs=1e-5), router


@pytest.mark.slow
def test_all_routers_were_trained(find: Find) -> None:
    for layout in ("1,1,1", "2,1,1"):
        assert list(find(WHOLE)[layout]["curves"]) == router_names()


@pytest.mark.parametrize(("compared", "layout"), COMPARED)
def test_evaluation_counts_every_image_once(find: Find, compared: Comparison, layout: str) -> None:
    found = find(compared)
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


@pytest.mark.parametrize(
    "compared", [SMALL, pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["small", "whole"]
)
def test_a_run_goes_on_in_every_later_layout(find: Find, compared: Comparison) -> None:
    found, middle = find(compared), compared.num_steps // 2
    before: set[str] = set()
    for stage in (("1,1,1",), *(set(stage) & set(compared.layouts) for stage in (TWO, FOUR)), ("again",)):
        for layout in stage:
            assert {kept.partition(" ")[0] for kept in found[layout]["goes on"]} == before
            for kept, curve in found[layout]["goes on"].items():
                of_one = found["1,1,1"]["curves"][kept.partition(" ")[2]]
                assert len(curve) == 3
                for step, expected in zip(curve, of_one[middle:], strict=False):
                    assert step == pytest.approx(expected, rel=0, abs=1e-5), kept
        before |= set(stage)


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


def train(fork_server: ForkServer, *ranks: tuple[object, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Start the ranks of a run, each by its own words, and wait for all of them."""
    shared = {"WORLD_SIZE": str(len(ranks)), "LOCAL_WORLD_SIZE": str(len(ranks)), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    started = [
        fork_server.start(*words, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, words in enumerate(ranks)
    ]
    return [process.end() for process in started]


def free_port() -> str:
    with socket.socket() as any_port:
        any_port.bind(("localhost", 0))
        return str(any_port.getsockname()[1])


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


def test_a_run_that_is_interrupted_in_one_layout_goes_on_in_others(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    def two_ranks(layout: str, *interruption: object) -> list[subprocess.CompletedProcess[str]]:
        words = ("train", *TINY, f"runtime.results={results}", layout)
        whole = ("-m", "routerbench", *words)
        return train(
            fork_server, whole, (TESTS / "rank_train.py", *interruption, *words) if interruption else whole
        )

    results = tmp_path / "many"
    first, second = two_ranks("parallel.data=2", 6, "raise")
    assert first.returncode != 0
    assert second.returncode != 0
    assert "one rank went wrong" in second.stderr
    assert kept_in(results) == [4]
    first, second = two_ranks("parallel.shard=2", 10, "kill")
    assert first.returncode != 0
    assert second.returncode == -signal.SIGKILL
    assert kept_in(results) == [4, 8]
    # A scheduler warns one rank, and all of them stop with the code of a requeue.
    first, second = two_ranks("parallel.data=2", 13, "warn")
    assert "stopped by SIGUSR1 at step 14, which is kept" in first.stderr
    assert [first.returncode, second.returncode] == [os.EX_TEMPFAIL, os.EX_TEMPFAIL]
    assert kept_in(results) == [12, 14]
    # Nothing of this is an outcome.
    assert not (folder_of(results) / "record.json").exists()
    first, second = two_ranks("parallel.expert=2")
    assert [first.returncode, second.returncode] == [0, 0], first.stderr + second.stderr
    assert (first.stdout.count("1 done"), second.stdout) == (1, "")
    assert record_of(results)["provenance"]["restarts"] == 3
    assert record_of(results)["provenance"]["parallel"] == {"data": 1, "shard": 1, "expert": 2}
    alone = ("-m", "routerbench", "train", *TINY, f"runtime.results={tmp_path / 'one'}")
    of_one = fork_server.run(*alone)
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
