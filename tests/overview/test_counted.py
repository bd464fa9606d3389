"""What a plan keeps of models that it has counted: it is used for the same question alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerbench.compose import Sweep
from routerbench.ledger.ledger import read_ledger
from routerbench.overview import possible
from routerbench.overview.counted import Counts
from routerbench.overview.estimate import Size
from routerbench.overview.plan import Plan, make_plan

SweepOf = Callable[..., Sweep]
WriteRun = Callable[..., Path]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The routers whose models are counted from now on, which cost 1 FLOP and 2 parameters."""
    asked: list[str] = []

    def size_of(config: Any) -> Size:
        asked.append(config.router.name)
        return Size(1, 2)

    monkeypatch.setattr(possible, "size_of", size_of)
    return asked


def plan_of(sweep: Sweep, results: Path) -> Plan:
    results.mkdir(exist_ok=True)
    return make_plan(sweep, read_ledger(results))


def test_a_second_plan_says_the_same_and_builds_no_model(
    sweep_of: SweepOf, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan_of(sweep_of(), results)
    assert all(row.expected and row.expected.flops_per_image for row in first.rows)
    monkeypatch.delattr(possible, "size_of")
    assert plan_of(sweep_of("seed=7,8"), results).rows[0].expected == first.rows[0].expected
    assert plan_of(sweep_of(), results) == first


def test_another_configuration_is_counted(sweep_of: SweepOf, results: Path, counted: list[str]) -> None:
    plan_of(sweep_of("router=soft,hash"), results)
    plan_of(sweep_of("router=soft", "epochs=3"), results)
    plan_of(sweep_of("router=soft,dense", "runtime.backend=loop"), results)
    assert counted == ["soft", "hash", "soft", "soft", "dense"]


def test_what_is_no_part_of_a_run_can_be_wrong_still(sweep_of: SweepOf, results: Path) -> None:
    assert plan_of(sweep_of("router=dense"), results).rows[0].impossible is None
    (row,) = plan_of(sweep_of("router=dense", "placement=nowhere"), results).rows
    assert row.impossible is not None
    assert row.impossible.startswith("placement=nowhere is not one of: ")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"code": 1}', "half", "other", "words"])
def test_what_is_damaged_or_of_other_code_is_made_again(
    sweep_of: SweepOf, results: Path, counted: list[str], damage: str
) -> None:
    first, path = plan_of(sweep_of("router=soft"), results), results / "counts.json"
    whole = path.read_text()
    content = json.loads(whole)
    wrong = {
        "half": whole[: len(whole) // 2],
        "other": json.dumps(content | {"code": "0" * 64, "sizes": {key: [7, 7] for key in content["sizes"]}}),
        "words": json.dumps(content | {"sizes": {key: ["a", 7] for key in content["sizes"]}}),
    }
    path.write_text(wrong.get(damage, damage))
    assert plan_of(sweep_of("router=soft"), results) == first
    assert counted == ["soft", "soft"]
    assert path.read_text() == whole


def test_code_from_elsewhere_is_asked_each_time(sweep_of: SweepOf, counted: list[str]) -> None:
    (config,) = sweep_of("router=hash", "seed=0").configs
    config.router._target_ = "mine.Hash"
    counts = Counts()
    assert [counts.size(config, "abacus") for _ in range(2)] == [Size(1, 2)] * 2
    assert (counted, counts.sizes) == (["hash", "hash"], {})


@pytest.mark.skipif(any(Path("/dev").glob("nvidia*")), reason="a GPU is looked for by torch each time")
def test_what_is_done_or_counted_needs_no_torch(
    sweep_of: SweepOf, write_run: WriteRun, results: Path
) -> None:
    words = ("router=dense,soft", "seed=0,1")
    sweep = sweep_of(*words)
    write_run(sweep.cells[0])
    plan_of(sweep, results)  # and the device by another process, which has no number of threads of its own
    code = f"""
import os, sys
from routerbench import cli
sys.argv = ["routerbench", "plan", *{[*list(sweep.cells[0].words), *words]!r}]
if child := os.fork():
    os.waitpid(child, 0)
try:
    cli.main()
finally:
    assert not child or not {{"torch", "pandas", "scipy"}} & sys.modules.keys()
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    first, second = finished.stdout[: len(finished.stdout) // 2], finished.stdout[len(finished.stdout) // 2 :]
    assert first == second
    assert "4 cells of 2 configurations: 1 done, 3 missing" in first
