"""How many seeds tell a difference: the pairs that are counted, and what is said without a pilot."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from routerbench import cli
from routerbench.compose import Sweep
from routerbench.ledger.ledger import read_ledger
from routerbench.overview.detect import Needed, comparisons, pilot_words
from routerbench.overview.plan import Plan, make_plan, results_of
from routerbench.overview.show_detect import detect_lines
from routerbench.stats import seeds_needed

SweepOf = Callable[..., Sweep]
WriteRun = Callable[..., Path]


def plan_of(sweep: Sweep) -> Plan:
    return make_plan(sweep, read_ledger(results_of(sweep)))


def test_the_seeds_follow_from_the_spread_of_the_pilot(sweep_of: SweepOf, write_run: WriteRun) -> None:
    # Differences dense - soft of 1, 2 and 3 points: deviation 1 point; three pairs of three configurations.
    sweep = sweep_of()
    scores = {"dense": (0.51, 0.53, 0.52), "soft": (0.50, 0.51, 0.49)}
    for cell in sweep.cells:
        name, seed = cell.settings["router"]["name"], cell.settings["seed"]
        if name in scores:
            write_run(cell, top1=scores[name][seed])
    (found,) = comparisons(plan_of(sweep).rows, 0.5)
    assert found.title == "digits pocket_vit, 2 epochs"
    assert found.spread is not None
    assert found.spread.deviation == pytest.approx(0.01)
    assert (found.spread.freedom, found.spread.num_scores) == (2, 6)
    upper = 0.01 * math.sqrt(-1 / math.log(0.8))
    expected = [seeds_needed(0.005, deviation, 0.05 / 3, 0.8) for deviation in (0.01, upper)]
    assert found.of_all == Needed(3, *expected)
    # Soft and hash against dense, and hash against soft.
    assert found.of_report == Needed(3, *expected)
    lines = list(detect_lines([found], 0.5))
    assert lines[0].startswith("seeds that tell 0.5 points of top-1")
    assert "deviation of differences paired by seed 1 points, by 6 runs (2 degrees of freedom)" in lines[1]
    assert f"all 3 pairs of 3 configurations: {expected[0]} seeds, {expected[1]} by the upper" in lines[2]


def test_models_are_compared_apart(sweep_of: SweepOf, write_run: WriteRun) -> None:
    sweep = sweep_of("router=dense,soft", "seed=0,1", "epochs=1,2")
    rng = np.random.default_rng(0)
    for cell in sweep.cells:
        write_run(cell, top1=float(rng.random()))
    found = comparisons(plan_of(sweep).rows, 1.0)
    assert [one.title for one in found] == [
        "digits pocket_vit epochs=1, 1 epochs",
        "digits pocket_vit epochs=2, 2 epochs",
    ]
    assert all(one.of_all is not None and one.of_all.num_pairs == 1 for one in found)


@pytest.mark.parametrize("scores", [{}, {0: 0.5}, {0: 0.5, 1: 0.5}])
def test_what_shows_no_spread_is_no_pilot(
    sweep_of: SweepOf, write_run: WriteRun, scores: dict[int, float]
) -> None:
    sweep = sweep_of("router=dense,soft", "seed=0,1")
    for cell in sweep.cells:
        if cell.settings["seed"] in scores:
            write_run(cell, top1=scores[cell.settings["seed"]])
    (found,) = comparisons(plan_of(sweep).rows, 0.5)
    assert found.spread is found.of_all is found.of_report is None


def test_the_pilot_is_two_seeds_of_the_sweep(sweep_of: SweepOf) -> None:
    words = ["+sweep=routers", "seed=4,5,6", "epochs=1"]
    assert pilot_words(words, plan_of(sweep_of("router=dense", "seed=4,5,6")).rows) == [
        "+sweep=routers",
        "epochs=1",
        "seed=4,5",
    ]
    assert pilot_words([], plan_of(sweep_of("router=dense", "seed=7")).rows) == ["seed=7,8"]


def test_without_a_pilot_the_command_names_one(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=digits", "router=dense,hash", "seed=0,1,2", f"runtime.results={results}"]
    monkeypatch.setattr(sys, "argv", ["routerbench", "plan", *words, "--detect", "0.3"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    said = capsys.readouterr()
    assert "no pilot, which is two seeds of two configurations that are done" in said.out
    assert said.err == (
        "routerbench: detect=0.3 needs a pilot, two seeds of two configurations that differ: "
        f"routerbench train -m data=digits router=dense,hash runtime.results={results} seed=0,1\n"
    )


def test_one_configuration_has_nothing_to_tell_apart(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=digits", "router=dense", f"runtime.results={results}", "--detect=0.3"]
    monkeypatch.setattr(sys, "argv", ["routerbench", "plan", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert (
        capsys.readouterr().err
        == "routerbench: detect=0.3 needs two configurations to compare: this is one\n"
    )
