import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from routerbench.config import conf_dir
from routerbench.report.runs.run import Run, read_runs
from routerbench.report.runs.select import of_sweep, selected

WriteRun = Callable[..., Path]
SETTINGS = (
    "settings are: status, augment, batch_size, capacity_factor, data, epochs, eval_every, group, model, "
    "num_experts, optim, placement, precision, router, seed"
)


@pytest.fixture
def runs(results: Path, write_run: WriteRun) -> Sequence[Run]:
    """A dense run and four others, each named for what makes it another."""
    write_run("dense", 0, 0.7, run_id="dense")
    write_run("soft", 0, 0.8, run_id="soft", capacity_factor=1.5)
    write_run("hash", 1, 0.6, run_id="hash", placement=[3, 5], settings={"top_k": 2})
    write_run("token_choice", 1, 0.8, run_id="tc", settings={"top_k": 1, "batch_priority": True})
    write_run("token_choice", 2, None, "failed", run_id="failed", settings={"top_k": 1})
    return read_runs(results).runs


def ids(runs: Sequence[Run]) -> set[str]:
    return {run["run_id"] for run in runs}


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ({}, {"dense", "soft", "hash", "tc", "failed"}),
        ({"router": ["soft"]}, {"soft"}),
        ({"router": ["soft", "dense"]}, {"soft", "dense"}),
        ({"router.name": ["soft"]}, {"soft"}),
        ({"model": ["pocket_vit"]}, {"dense", "soft", "hash", "tc", "failed"}),
        ({"data": ["landcover32"], "seed": ["1"]}, {"hash", "tc"}),
        ({"seed": ["0", "2"]}, {"dense", "soft", "failed"}),
        ({"status": ["failed"]}, {"failed"}),
        ({"optim.lr": ["1e-3"]}, {"dense", "soft", "hash", "tc", "failed"}),
        # What follows a dense run has not, and it is the twin of whatever is left.
        ({"capacity_factor": ["1.5"]}, {"dense", "soft"}),
        ({"capacity_factor": ["1.0"]}, {"dense", "hash", "tc", "failed"}),
        ({"placement": ["[3,5]"]}, {"dense", "hash"}),
        ({"placement": ["[3, 5]", "last_2"]}, {"dense", "soft", "hash", "tc", "failed"}),
        ({"placement": ["none"]}, {"dense"}),
        ({"router.top_k": ["1"], "status": ["done"]}, {"dense", "tc"}),
        ({"router.top_k": ["1"], "router": ["token_choice"]}, {"tc", "failed"}),
        ({"router.batch_priority": ["true"]}, {"dense", "tc"}),
        ({"router.batch_priority": ["null"], "seed": ["1"]}, {"hash"}),
    ],
)
def test_a_filter_leaves_the_runs_of_which_it_is_true(
    runs: Sequence[Run], where: dict[str, list[str]], left: set[str]
) -> None:
    assert ids(selected(runs, where)) == left


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (
            {"router": ["sofd"]},
            "--where router=sofd is what no run has: there is dense, hash, soft, token_choice "
            "(did you mean soft?)",
        ),
        ({"seed": ["0", "7"]}, "--where seed=7 is what no run has: there is 0, 1, 2"),
        ({"seed": ["true"]}, "--where seed=true is what no run has: there is 0, 1, 2"),
        (
            {"placement": ["[3"]},
            "--where placement=[3 is what no run has: there is [3, 5], last_2, none",
        ),
        ({"routr": ["x"]}, f"--where routr is no setting of these runs (did you mean router?); {SETTINGS}"),
        (
            {"router.topk": ["1"]},
            f"--where router.topk is no setting of these runs (did you mean router.top_k?); {SETTINGS}",
        ),
        (
            {"router": ["soft"], "seed": ["1", "2"]},
            "--where router=soft --where seed=1,2 leaves none of 5 runs: leave out one of them",
        ),
    ],
)
def test_what_leaves_nothing_is_refused(runs: Sequence[Run], where: dict[str, list[str]], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        selected(runs, where)


def test_many_values_are_not_all_named(results: Path, write_run: WriteRun) -> None:
    for seed in range(30):
        write_run("soft", seed, 0.5)
    text = (
        r"^--where seed=99 is what no run has: there is 0, 1, 10, [\d, ]+ and 10 more \(did you mean 9\?\)$"
    )
    with pytest.raises(ValueError, match=text):
        selected(read_runs(results).runs, {"seed": ["99"]})


def test_a_sweep_has_the_runs_it_composes_to_and_those_that_its_name_was_given_for(
    results: Path, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_sweep_now = "landcover32-pocket_vit-soft-s0"
    commands = {
        "a": "routerbench train -m +sweep=routers epochs=2",
        "b": "routerbench train -m +sweep=routers_too",
        "c": "routerbench train 'an open quote +sweep=routers",
        "d": "routerbench train",
    }
    for number, (name, command) in enumerate(commands.items()):
        write_run("soft", number, 0.5, run_id=name, provenance={"command": command})
    monkeypatch.setattr("routerbench.report.runs.select._composed", lambda name: {of_sweep_now})
    write_run("soft", 8, 0.5, run_id=of_sweep_now)
    assert ids(of_sweep(read_runs(results).runs, "routers")) == {"a", "c", of_sweep_now}
    # One of the user's own folder is known by the commands alone.
    assert ids(of_sweep(read_runs(results).runs, "routers_too")) == {"b"}


def test_a_sweep_composes_to_the_published_runs() -> None:
    pocket = read_runs(Path(__file__).parents[3] / "results" / "pocket").runs
    without_commands = [{path: run[path] for path in run if path != "provenance.command"} for run in pocket]
    assert len(pocket) == 27
    assert ids(of_sweep(without_commands, "demo")) == ids(pocket)


def test_a_sweep_that_is_not_there_is_refused(runs: Sequence[Run]) -> None:
    names = ", ".join(sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml")))
    text = f"--sweep=router is not one of: {names} (did you mean routers?)"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        of_sweep(runs, "router")


def test_a_sweep_of_which_no_run_is_there_is_refused(runs: Sequence[Run]) -> None:
    text = "--sweep=routers has none of 5 runs: routerbench train -m +sweep=routers first"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        of_sweep(runs, "routers")
