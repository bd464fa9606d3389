"""The command from end to end, on tiny runs."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from routerbench import cli
from routerbench.records import read_record

TINY = (
    "data=digits",
    "augment=crop_flip",
    "epochs=1",
    "+model.arguments.depth=2",
    "+model.arguments.embed_dim=16",
    "+model.arguments.num_heads=2",
    "num_experts=4",
    "runtime.wandb=disabled",
    "runtime.workers=0",
    "runtime.threads=1",
    "runtime.device=cpu",
    "runtime.backend=loop",  # nothing is measured
)
RUNS = ("router=token_choice", "router=token_choice seed=1", "router=soft", "router=dense")
PICTURES = (
    "experts_by_class",
    "experts_by_position_blocks.1",
    "experts_by_layer",
    "specialisation_by_layer",
    "images_1",
    "experts_per_image",
    "patches_per_image",
    "expert_weight_similarity",
    "expert_output_similarity",
    "similarity_by_depth",
    "over_training",
)
Run = Callable[..., int]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two seeds of token_choice, soft and dense."""
    from routerbench import experiment
    from routerbench.compose import compose_sweep
    from routerbench.signals import Warned

    results = tmp_path_factory.mktemp("trained") / "results"
    threads = torch.get_num_threads()
    for words in RUNS:
        config = compose_sweep([*TINY, f"runtime.results={results}", *words.split()], None, False).configs[0]
        console = Console(file=io.StringIO(), width=200)
        said = experiment.run(
            config, command="it", repeat="it", console=console, title="run", warned=Warned()
        )
        assert said == "done"
    torch.set_num_threads(threads)
    return results


def copied(results: Path, folder: Path) -> dict[str, Path]:
    """The folders of a copy of runs, by router and seed."""
    shutil.copytree(results, folder / "results")
    folders = (folder / "results" / "runs").iterdir()
    return {"-".join(folder.name.split("-")[2:4]): folder for folder in folders}


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> dict[str, Path]:
    """These runs, of this test alone."""
    return copied(trained, tmp_path)


@pytest.fixture(scope="module")
def inspected(trained: Path, inspect: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of token_choice that the command has looked at, with agreements made up."""
    from routerbench.inspection import measured

    folder = copied(trained, tmp_path_factory.mktemp("inspected"))["token_choice-s0"]
    with pytest.MonkeyPatch.context() as patch:
        agreement = {20: {"blocks.1": 0.75}, 3: {"blocks.1": 0.5}}
        patch.setattr(measured, "over_training", lambda run, seen: agreement)
        assert inspect(folder) == 0
    return folder


@pytest.fixture
def looked_at(inspected: Path, tmp_path: Path) -> Path:
    """The same, of this test alone."""
    return Path(shutil.copytree(inspected, tmp_path / "runs" / inspected.name))


@pytest.fixture(scope="module")
def inspect() -> Run:
    """A function that runs the command with these words and gives back its exit code."""

    def run(*words: Any) -> int:
        line = ["routerbench", "inspect", "--device", "cpu", "--permutations", "3", *map(str, words)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", line)
            with pytest.raises(SystemExit) as caught:
                cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code

    return run


def numbers(folder: Path) -> dict[str, float]:
    record = read_record(folder)
    assert record is not None
    kept = dict(record["evaluations"]["inspect"]["trained"])
    assert kept.pop("origin")["method"] == 2
    return kept


def test_a_run_gets_numbers_pictures_and_a_page(inspected: Path, runs: dict[str, Path]) -> None:
    folder, before = inspected, read_record(runs["token_choice-s0"])
    for name in PICTURES:
        for ending in ("svg", "csv"):
            assert (folder / "inspect" / f"{name}.{ending}").stat().st_size > 20, name
    assert not list((folder / "inspect").glob("*.p[nd][gf]"))
    text = (folder / "inspect" / "index.html").read_text()
    assert folder.name.partition("-")[0] in text
    assert {"blocks.1/class", "blocks.1/position", "class"} <= numbers(folder).keys()
    record = read_record(folder)
    assert record is not None
    record.pop("evaluations")
    assert record == before


def test_what_was_measured_is_not_measured_again(
    inspect: Run, looked_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerbench.inspection import measured

    def never(*arguments: Any) -> Any:
        raise ValueError("measured again")

    first = numbers(looked_at)
    for name in ("look", "numbers_of", "over_training"):
        monkeypatch.setattr(measured, name, never)
    assert inspect(looked_at, "--images", "3,1", "--layers", "blocks.1", "--png") == 0
    assert (looked_at / "inspect" / "images_1.png").exists()
    assert 'href="images_1.png"' in (looked_at / "inspect" / "index.html").read_text()
    rows = (looked_at / "inspect" / "images_1.csv").read_text().splitlines()[1:]
    assert list(dict.fromkeys(row.split(",")[0] for row in rows)) == ["3", "1"]
    lines = (looked_at / "inspect" / "stability_over_training.csv").read_text().splitlines()
    assert lines == ["layer,step,fraction", "blocks.1,3,0.5", "blocks.1,20,0.75"]
    assert numbers(looked_at) == first
    assert inspect(looked_at, "--again") == 2


def test_other_null_models_are_measured(looked_at: Path) -> None:
    from routerbench.inspection.asked import Asked
    from routerbench.inspection.measured import measured
    from routerbench.load import open_run

    run, origins = open_run(looked_at, device="cpu"), []
    for asked in (Asked(permutations=4), Asked(permutations=4, seed=7)):
        measured(run, asked)
        record = read_record(looked_at)
        assert record is not None
        origins.append(record["evaluations"]["inspect"]["trained"]["origin"])
    assert [(one["permutations"], one["seed"]) for one in origins] == [(4, 0), (4, 7)]


def test_other_weights_than_the_ranked_ones_have_a_place_of_their_own(runs: dict[str, Path]) -> None:
    from dataclasses import replace

    from routerbench.inspection.asked import Asked
    from routerbench.inspection.measured import measured
    from routerbench.load import open_run

    run = open_run(runs["token_choice-s0"], device="cpu")
    found = measured(replace(run, weights="ema"), Asked(permutations=3))
    record = read_record(run.folder)
    assert record is not None
    kept = record["evaluations"]["inspect"]["weights=ema trained"]
    assert {name: kept[name] for name in found.numbers} == found.numbers
    assert found.folder == run.folder / "inspect" / "ema"


def change_kept(folder: Path, kept: Any) -> None:
    record = read_record(folder)
    assert record is not None
    found = record.setdefault("evaluations", {}).setdefault("inspect", {})
    found |= {
        name: {**found.get(name, {}), **one} if isinstance(one, dict) else one for name, one in kept.items()
    }
    (folder / "record.json").write_text(json.dumps(record))


def test_numbers_of_a_record_that_are_none_are_passed_over(runs: dict[str, Path]) -> None:
    from routerbench.inspection.asked import Asked
    from routerbench.inspection.measured import measured
    from routerbench.load import open_run

    folder, asked = runs["token_choice-s0"], Asked(permutations=3)
    first = measured(open_run(folder, device="cpu"), asked)
    record = read_record(folder)
    assert record is not None
    origin = record["evaluations"]["inspect"]["trained"]["origin"]
    none = {"a/agreement_at_x": 1, "a/agreement_at_3": "1", "origin": origin}
    change_kept(folder, {"trained": {"class": "x"}, "checkpoints": none})
    second = measured(open_run(folder, device="cpu"), asked)
    assert second.numbers == {name: value for name, value in first.numbers.items() if name != "class"}
    assert second.checkpoints == {}


def test_what_checkpoints_agree_on_is_of_the_images_as_they_are(
    looked_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerbench.inspection import measured
    from routerbench.inspection.asked import Asked
    from routerbench.load import open_run
    from routerbench.records import keep_evaluation

    monkeypatch.setattr(measured, "over_training", lambda run, seen: {20: {"blocks.1": 0.75}})
    record = read_record(looked_at)
    assert record is not None
    origin = record["evaluations"]["inspect"]["checkpoints"]["origin"]
    of_others = {"blocks.1/agreement_at_20": 0.5, "origin": {**origin, "data": {"number": 1, "sha256": "0"}}}
    keep_evaluation(looked_at, record, "inspect", "checkpoints", of_others)
    found = measured.measured(open_run(looked_at, device="cpu"), Asked(permutations=3))
    assert found.checkpoints == {20: {"blocks.1": 0.75}}


def test_evaluations_that_are_no_results_are_refused(
    inspect: Run, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs["token_choice-s0"]
    record = read_record(folder)
    assert record is not None
    (folder / "record.json").write_text(json.dumps({**record, "evaluations": {"inspect": [1]}}))
    assert inspect(folder) == 2
    assert capsys.readouterr().err == (
        f"routerbench: path={folder} has a record.json whose evaluations are not results by study and mode: "
        "take them out of it, and they are measured again\n"
    )


def test_a_folder_that_is_named_twice_is_one_run(
    inspect: Run, looked_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerbench.inspection import run

    drawn: list[int] = []

    def draw(one: Any, seeds: Any, all_seeds: Any, asked: Any) -> run.Outcome:
        drawn.append(len(all_seeds))
        return run.Outcome(looked_at, nothing="not drawn")

    monkeypatch.setattr(run, "_drawn", draw)
    monkeypatch.chdir(looked_at.parent)
    assert inspect(looked_at, looked_at.name) == 0
    assert drawn == [1]


def test_seeds_of_a_configuration_are_compared(
    inspect: Run, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    both = [runs["token_choice-s0"], runs["token_choice-s1"]]
    assert inspect(*both) == 0
    printed = capsys.readouterr().out
    for folder in both:
        assert (folder / "inspect" / "stability_over_seeds.csv").exists()
        record = read_record(folder)
        assert record is not None
        kept = record["evaluations"]["inspect"]["seeds=0,1"]
        assert set(kept["origin"]["runs"]) == {one.name for one in both}
        agreement, chance = (kept[f"blocks.1/{name}"] for name in ("agreement", "agreement_null"))
        assert f"over seeds on {agreement:.2f} of patches, by chance {chance:.2f}\n" in printed


def test_runs_with_nothing_to_see_do_not_stop_the_others(
    inspect: Run, runs: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert inspect(runs["dense-s0"], tmp_path / "nowhere", runs["soft-s0"], "--classes", "3,7", "--json") == 2
    shown = capsys.readouterr()
    dense, nowhere, soft = json.loads(shown.out)
    assert dense["nothing"] == "a dense run has no routers: there is nothing to inspect"
    assert (
        nowhere["refusal"] == f"path={tmp_path}/nowhere has no config.yaml: give the folder of a finished run"
    )
    assert shown.err == f"routerbench: {nowhere['refusal']}\n"
    assert soft["numbers"] == numbers(runs["soft-s0"])
    assert Path(soft["page"]).is_file()
    # A soft router shows its slots, and one seed is like no other.
    assert (runs["soft-s0"] / "inspect" / "dispatch_blocks.1.svg").exists()
    assert not (runs["soft-s0"] / "inspect" / "stability_over_seeds.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "3,x"], "--images=3,x is no list of whole numbers: give some such as 3,17"),
        (["--most", "0"], "--most=0 must be a whole number of at least 1"),
        (["--batch-size", "0"], "--batch-size=0 must be a whole number of at least 1"),
        (["--seed", "-1"], "--seed=-1 must be a number of at least 0"),
        (["--most", "100000"], "--most=100000: 355 images are more than a page shows: choose up to 64"),
        (["--layers", ","], "--layers=, has an empty name: give some, separated by commas"),
        (["--classes", ""], "--classes= has an empty name: give some, separated by commas"),
        (["--layers", "blocks.9"], "--layers=blocks.9 is not one of: blocks.1"),
        (["--classes", "cat"], "--classes=cat is not one of: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (["--images", "1", "--most", "2"], "argument --most: not allowed with argument --images"),
    ],
)
def test_words_that_mean_nothing_are_refused_in_one_line(
    inspect: Run,
    runs: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    from routerbench.inspection import run

    monkeypatch.setattr(run, "measured", None)  # nothing long has started
    assert inspect(runs["token_choice-s0"], *words) == 2
    assert capsys.readouterr().err == f"routerbench: {said}\n"
