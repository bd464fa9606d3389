"""A sweep held against the ledger: its cells by configuration, what is left, and what cannot run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from routerbench import cli
from routerbench.compose import Sweep
from routerbench.ledger.ledger import read_ledger
from routerbench.overview.estimate import Estimate
from routerbench.overview.plan import Plan, make_plan, results_of
from routerbench.overview.possible import device_here
from routerbench.overview.show_plan import lines, table
from routerbench.records import run_folder
from routerbench.sweep import named

SweepOf = Callable[..., Sweep]
WriteRun = Callable[..., Path]
Plans = Callable[..., tuple[int, str, str]]


@pytest.fixture
def planned(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plans:
    """A function that runs `routerbench plan` with these words; its exit code and what it says."""

    def plan(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["routerbench", "plan", f"runtime.results={results}", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    return plan


def plan_of(sweep: Sweep) -> Plan:
    return make_plan(sweep, read_ledger(results_of(sweep)))


def said(plan: Plan, sweep: Sweep, everything: bool = False) -> list[str]:
    return list(lines(plan, sweep, everything))


def test_the_cells_of_a_configuration_stand_together(sweep_of: SweepOf) -> None:
    plan = plan_of(sweep_of())
    assert [row.label for row in plan.rows] == ["router=dense", "router=soft", "router=hash"]
    assert [row.seeds for row in plan.rows] == [{"missing": [0, 1, 2]}] * 3
    assert [row.num_left for row in plan.rows] == [3, 3, 3]


def test_one_configuration_goes_by_its_name(sweep_of: SweepOf) -> None:
    (row,) = plan_of(sweep_of("router=dense")).rows
    assert row.label == row.group
    assert row.label.startswith("digits-pocket_vit-dense-")


def test_without_records_the_model_alone_is_counted(sweep_of: SweepOf, results: Path) -> None:
    sweep = sweep_of("seed=0")
    plan = plan_of(sweep)
    assert not results.exists()
    for row in plan.rows:
        assert row.expected is not None
        assert row.expected.counted
        assert row.expected.flops_per_image
        assert row.expected.training_flops is row.expected.seconds is row.expected.disk_bytes is None
    assert said(plan, sweep) == [
        "3 cells of 3 configurations: 3 missing",
        "left: 3 runs",
        "  FLOPs, three forward passes for each image trained on: no earlier record tells",
        f"  time to train one run after the other on {plan.rows[0].device}: no earlier record tells",
        "  disk: no earlier record tells",
        "  * counted on a model with two classes",
    ]


def test_what_is_left_is_estimated_from_what_is_done(sweep_of: SweepOf, write_run: WriteRun) -> None:
    sweep = sweep_of("router=dense,soft")
    here = device_here(sweep.configs[0])
    for cell in sweep.cells[:2]:  # two seeds of dense
        write_run(cell, device=here, flops=1000, images=600, seconds=60.0)
    dense, soft = plan_of(sweep).rows
    assert dense.expected is not None
    assert dense.expected.seconds == Estimate(60.0, "seeds", 2)
    assert dense.expected.training_flops == pytest.approx(3 * 1000 * 600)
    assert dense.num_left == 1
    assert soft.expected is not None
    assert soft.expected.seconds is not None
    flops = soft.expected.flops_per_image
    assert flops is not None
    assert soft.expected.seconds.value == pytest.approx(flops * 60 / 1000)
    assert soft.expected.seconds.basis == "twins"


def test_totals_are_of_what_is_left_and_can_run(sweep_of: SweepOf, write_run: WriteRun) -> None:
    # Seeds 0 to 2 of each; 600 images a run; of hash the second has failed, and is not asked for again.
    #           done   left   FLOPs of a run        FLOPs left   time left   disk left
    # dense     0      1, 2   3 * 1 k * 600         3.6 M        2 * 60 s    2 * 1 MB
    # soft      0, 1   2      3 * 3 k * 600         5.4 M        90 s        3 MB
    # hash      0      2      3 * 2 k * 600         3.6 M        30 s        2 MB
    # random    0 to 2 none
    # In all:                                       12.6 M       240 s       7 MB
    sweep = sweep_of("router=dense,soft,hash,random")
    here = device_here(sweep.configs[0])
    costs = {"dense": (1000, 60.0, 1e6), "soft": (3000, 90.0, 3e6), "hash": (2000, 30.0, 2e6)}
    dense, soft, hash_, random = (sweep.cells[first : first + 3] for first in range(0, 12, 3))
    for cell in (dense[0], *soft[:2], hash_[0], *random):
        flops, seconds, num_bytes = costs.get(cell.settings["router"]["name"], (7000, 777.0, 7e6))
        folder = write_run(cell, device=here, flops=flops, images=600, seconds=seconds)
        record = (folder / "record.json").stat().st_size
        (folder / "weights").write_bytes(bytes(int(num_bytes) - record))
    write_run(hash_[1], status="failed", error="boom")

    plan = plan_of(sweep)
    assert said(plan, sweep)[:5] == [
        "12 cells of 4 configurations: 7 done, 1 failed, 4 missing",
        "left: 4 runs",
        "  FLOPs, three forward passes for each image trained on: 12.6 M",
        f"  time to train one run after the other on {here}: 4.0 min",
        "  disk: 7.00 MB",
    ]
    assert [list(column.cells)[:3] for column in table(plan).columns[2:]] == [
        ["1.00 k", "3.00 k", "2.00 k"],
        ["3.60 M", "5.40 M", "3.60 M"],
        ["2.0 min", "1.5 min", "30 s"],
        ["2.00 MB", "3.00 MB", "2.00 MB"],
    ]
    assert [list(column.cells)[3] for column in table(plan).columns[2:]] == ["7.00 k", "", "", ""]

    again = sweep_of("router=dense,soft,hash,random", "runtime.retry=failed")
    assert said(plan_of(again), again)[1:5] == [
        "left: 5 runs",
        "  FLOPs, three forward passes for each image trained on: 16.2 M",
        f"  time to train one run after the other on {here}: 4.5 min",
        "  disk: 9.00 MB",
    ]


def test_totals_leave_out_what_cannot_run_and_what_nothing_tells_of(
    sweep_of: SweepOf, write_run: WriteRun
) -> None:
    # Of 2 epochs one seed is done, and two of 60 s are left. Nothing tells of 3 epochs, which are three runs.
    # Those of soft, which mixes no images, cannot run.
    sweep = sweep_of("router=hash,soft", "group=8", "epochs=2,3")
    here = device_here(sweep.configs[0])
    write_run(sweep.cells[0], device=here, flops=1000, images=600, seconds=60.0)
    plan = plan_of(sweep)
    without = "without 3 runs of which no earlier record tells"
    lines = said(plan, sweep)
    assert lines[:4] == [
        "12 cells of 4 configurations: 1 done, 11 missing",
        "left: 5 runs",
        f"  FLOPs, three forward passes for each image trained on: 3.60 M {without}",
        f"  time to train one run after the other on {here}: 2.0 min {without}",
    ]
    assert len([line for line in lines if line.startswith("cannot run: ")]) == 2


def test_seconds_of_another_device_are_named_and_not_used(sweep_of: SweepOf, write_run: WriteRun) -> None:
    sweep = sweep_of("router=dense")
    write_run(sweep.cells[0], device="abacus")
    plan = plan_of(sweep)
    assert plan.elsewhere == ("abacus",)
    assert plan.rows[0].expected is not None
    assert plan.rows[0].expected.seconds is None
    assert "  not used for time, being of other devices: runs on abacus" in said(plan, sweep)


def test_every_state_is_counted_and_the_bad_ones_named(
    sweep_of: SweepOf, write_run: WriteRun, results: Path
) -> None:
    sweep = sweep_of()
    done, failed, diverged, oom, interrupted, damaged, *_ = sweep.cells
    write_run(done)
    write_run(failed, status="failed", error="Traceback\n  file\nRuntimeError: boom\n")
    write_run(diverged, status="diverged", error="loss is nan")
    write_run(oom, status="oom", error="out of memory")
    run_folder(results, interrupted.run_id).mkdir()
    run_folder(results, damaged.run_id).mkdir()
    (run_folder(results, damaged.run_id) / "record.json").write_text("{")
    plan = plan_of(sweep)
    first, *rest = said(plan, sweep)
    assert (
        first == "9 cells of 3 configurations: 1 done, 2 interrupted, 1 failed, 1 diverged, 1 oom, 3 missing"
    )
    named = [
        line for line in rest if line.startswith(("interrupted", "failed", "diverged", "oom", "damaged"))
    ]
    assert [line.split(":")[0] for line in named] == [
        *["interrupted"] * 2,
        "failed",
        "diverged",
        "oom",
        "damaged",
    ]
    assert rest[-4] == f"failed: {results}/runs/{failed.run_id}  RuntimeError: boom"
    assert rest[-1] == f"damaged: {results}/runs/{damaged.run_id}/record.json is no record of a run"
    assert sum(row.num_left for row in plan.left) == 5


def test_only_the_first_of_many_are_named_unless_all_are_asked_for(
    sweep_of: SweepOf, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named, "MOST_NAMED", 2)
    sweep = sweep_of("router=dense", "seed=range(4)")
    for cell in sweep.cells:
        write_run(cell, status="failed", error="boom")
    plan = plan_of(sweep)
    assert plan.rows[0].seeds == {"failed": [0, 1, 2, 3]}
    assert said(plan, sweep)[-1] == "and 2 more: --all"
    assert sum(line.startswith("failed: ") for line in said(plan, sweep)) == 2
    assert sum(line.startswith("failed: ") for line in said(plan, sweep, everything=True)) == 4


def test_what_cannot_run_is_named_with_its_reason(sweep_of: SweepOf) -> None:
    sweep = sweep_of("router=hash,soft", "group=8", "seed=0,1")
    plan = plan_of(sweep)
    assert [row.impossible is None for row in plan.rows] == [True, False]
    assert said(plan, sweep)[-1] == (
        "cannot run: cell 3 of 4 (router=soft seed=0) and its other seeds: group=8 would mix images: Soft "
        "routes each alone, group=image"
    )
    assert sum(row.num_left for row in plan.left) == 2


def test_what_has_run_is_checked_again_where_the_runtime_is_another(
    sweep_of: SweepOf, write_run: WriteRun
) -> None:
    for cell in sweep_of("router=soft", "seed=0").cells:
        write_run(cell)
    (row,) = plan_of(sweep_of("router=soft", "seed=0,1", "runtime.backend=gruped")).rows
    assert (
        row.impossible
        == "runtime.backend=gruped is not one of: auto, bmm, loop, grouped, one_hot (did you mean grouped?)"
    )


def test_several_folders_are_refused(sweep_of: SweepOf) -> None:
    with pytest.raises(ValueError, match=r"^runtime\.results=r0,r1: give one folder, whose ledger tells$"):
        results_of(sweep_of("router=dense", "seed=0,1", "runtime.results=r${seed}"))


def test_cells_that_nobody_has_chosen_yet_are_refused(sweep_of: SweepOf) -> None:
    hydra = sweep_of().hydra.copy()
    hydra.hydra.runtime.choices["hydra/sweeper"] = "optuna"
    text = "hydra/sweeper=optuna chooses its cells as it goes: give values, and leave it out"
    with pytest.raises(ValueError, match=f"^{text}$"):
        results_of(Sweep([], hydra, multirun=True))


def test_the_table_fits_80_columns(sweep_of: SweepOf, write_run: WriteRun) -> None:
    sweep = sweep_of(
        "data.train_split='train[:50%]','train'", "router=sinkhorn_expert_choice,dense", "seed=0,1"
    )
    for cell in sweep.cells:
        write_run(cell, device="abacus")
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(plan_of(sweep)))
    shown = captured.get().splitlines()
    assert max(map(len, shown)) <= 80
    assert shown[0].split() == ["FLOPs", "per", "FLOPs", "time", "disk"]
    assert "0-1 done" in captured.get()


def test_the_command_says_it_and_exits_with_0(planned: Plans) -> None:
    code, out, err = planned("data=digits", "router=dense", "seed=0,1")
    assert (code, err) == (0, "")
    assert "2 cells of 1 configurations: 2 missing" in out


def test_json_has_every_cell(planned: Plans, sweep_of: SweepOf, write_run: WriteRun) -> None:
    cell = sweep_of("router=dense", "seed=1").cells[0]
    write_run(cell)
    words = [word for word in cell.words if not word.startswith(("seed=", "runtime."))]
    code, out, _ = planned("--json", *words, "seed=0,1")
    told: dict[str, Any] = json.loads(out)
    assert code == 0
    assert told["counts"] == {"missing": 1, "done": 1}
    (configuration,) = told["configurations"]
    assert [one["state"] for one in configuration["cells"]] == ["missing", "done"]
    assert configuration["left"] == 1


def test_what_cannot_run_exits_with_2(planned: Plans) -> None:
    code, out, err = planned("data=digits", "router=soft,hash", "group=8", "seed=0,1")
    assert code == 2
    assert "(router=soft seed=0) and its other seeds: group=8 would mix images: Soft routes each alone" in out
    assert err == "routerbench: 1 of 2 configurations cannot run\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--detect", "0"], "detect=0.0 must be a number above 0"),
        (["--detct", "1"], "unrecognized arguments: --detct 1"),
        (["+epoch=3"], "+epoch=3: epoch is not a setting"),
        (
            ["--config-dir", "nowhere"],
            "--config-dir=nowhere is not a folder: give the one that holds your files",
        ),
    ],
)
def test_other_words_are_refused_in_one_line(planned: Plans, words: list[str], line: str) -> None:
    assert planned(*words) == (2, "", f"routerbench: {line}\n")


def test_settings_may_stand_behind_options(planned: Plans) -> None:
    code, out, _ = planned("data=digits", "--all", "router=dense", "seed=0,1,2")
    assert code == 0
    assert "3 cells of 1 configurations: 3 missing" in out
