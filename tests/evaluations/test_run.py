"""The command: what is measured once is kept, whatever happens, and nothing else in the record changes."""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fork_server import ForkServer

from routerbench import cli
from routerbench.commands import opening

if TYPE_CHECKING:
    from routerbench.evaluations.measurement import Asked, Measurement
    from routerbench.load import FinishedRun

Trained = Callable[..., "FinishedRun"]
FEW = ("--only", "capacity", "--capacity-factor", "0.5", "--top-k", "1", "--batch-priority", "false")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The command sets the threads of its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """The folder of a run of token_choice, of this test alone."""
    run = trained("router=token_choice")
    return Path(shutil.copytree(run.folder, tmp_path / "runs" / run.folder.name))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function from words to the exit code, what is printed and what is complained of."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["routerbench", "eval", *map(str, words), "--device", "cpu"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return int(str(caught.value.code)), said.out, said.err

    return run


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def test_what_is_there_is_not_measured_again(folder: Path, command: Any) -> None:
    before = record_of(folder)
    code, printed, complained = command(folder, *FEW)
    assert (code, complained) == (0, "")
    assert f"{folder.name}: 0 there, 3 measured\n" in printed
    lines = [line for line in printed.splitlines() if line.startswith(f"{folder.name}  capacity  capacity_")]
    assert re.search(r"capacity_factor=0.5  top1 % \d+\.\d\d  \(\d+\.\d s\)$", lines[0])
    after = record_of(folder)
    assert set(after["evaluations"]["capacity"]) == {"dropless=true", "trained", "capacity_factor=0.5"}
    assert {name: after[name] for name in before} == before
    assert json.dumps(after["metrics"]) == json.dumps(before["metrics"])

    code, printed, _ = command(folder, *FEW)
    assert (code, f"{folder.name}: 3 there, 0 measured\n" in printed) == (0, True)
    assert record_of(folder) == after
    code, printed, _ = command(folder, *FEW, "--again")
    assert f"{folder.name}: 0 there, 3 measured\n" in printed


def test_what_a_result_hangs_on_is_told(folder: Path, command: Any) -> None:
    command(folder, *FEW, "--seed", "3", "--batch-size", "32")
    origin = record_of(folder)["evaluations"]["capacity"]["trained"]["origin"]
    known = {name: origin[name] for name in ("method", "weights", "precision", "batch_size", "seed")}
    assert known == {"method": 2, "weights": "raw", "precision": "fp32", "batch_size": 32, "seed": 3}
    assert origin["seconds"] > 0
    assert origin["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert origin.keys() >= {"device", "commit", "finished"}


def test_what_an_earlier_method_measured_is_measured_again(folder: Path, command: Any) -> None:
    command(folder, *FEW)
    record = record_of(folder)
    record["evaluations"]["capacity"]["trained"] = {"top1": 0.123, "origin": {"method": 1}}
    (folder / "record.json").write_text(json.dumps(record))
    _, printed, _ = command(folder, *FEW)
    assert f"{folder.name}: 2 there, 1 measured\n" in printed
    assert record_of(folder)["evaluations"]["capacity"]["trained"]["top1"] != 0.123


def test_what_an_earlier_method_or_other_images_left_is_not_drawn(folder: Path, command: Any) -> None:
    command(folder, *FEW)
    record = record_of(folder)
    kept = record["evaluations"]["capacity"]
    kept["capacity_factor=0.75"] = {"top1": 0.123, "origin": {"method": 1}}
    elsewhere = kept["trained"]["origin"] | {"data": {"number": 3, "sha256": "0"}}
    kept["capacity_factor=0.25"] = kept["capacity_factor=0.5"] | {"origin": elsewhere}
    (folder / "record.json").write_text(json.dumps(record))
    assert command(folder, *FEW)[0] == 0
    rows = (folder / "eval" / "capacity.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"dropless=true", "trained", "capacity_factor=0.5"}
    assert record_of(folder) == record  # what was measured is kept


def test_other_weights_have_a_place_of_their_own(folder: Path, command: Any) -> None:
    command(folder, *FEW)
    shutil.copy(folder / "weights.safetensors", folder / "weights_ema.safetensors")
    code, printed, _ = command(folder, *FEW, "--weights", "ema")
    assert (code, f"{folder.name}: 0 there, 3 measured\n" in printed) == (0, True)
    found = record_of(folder)["evaluations"]["capacity"]
    assert found["weights=ema trained"]["origin"]["weights"] == "ema"
    assert found["weights=ema trained"]["top1"] == found["trained"]["top1"]
    assert (folder / "eval" / "weights=ema_capacity.csv").read_text().count("\n") == 4
    assert (folder / "eval" / "capacity.csv").read_text().count("\n") == 4


def test_one_document_and_nothing_else(folder: Path, command: Any) -> None:
    gone = folder.parent / "gone"
    command(folder, *FEW)
    code, printed, complained = command(
        folder, gone, "--only", "capacity", "--capacity-factor", "0.25", "--json"
    )
    told, refused = json.loads(printed)["runs"]
    assert code == 2
    assert refused["folder"] == str(gone)
    assert refused["refused"] in complained
    assert (told["run_id"], told["refused"], told["weights"]) == (folder.name, None, "raw")
    assert told["evaluations"]["capacity"].keys() >= {"dropless=true", "capacity_factor=0.25"}
    assert "capacity_factor=0.5" not in told["evaluations"]["capacity"]  # is there, but was not asked for


def test_a_run_that_is_refused_does_not_stop_the_others(folder: Path, trained: Trained, command: Any) -> None:
    soft = shutil.copytree(trained("router=soft").folder, folder.parent / trained("router=soft").folder.name)
    damaged = shutil.copytree(folder, folder.parent / "damaged")
    (damaged / "config.yaml").unlink()
    code, printed, complained = command(damaged, soft, folder, f"{folder}/", *FEW)
    assert code == 2
    assert complained.splitlines() == [
        f"routerbench: path={damaged} has no config.yaml: give the folder of a finished run",
        f"routerbench: {Path(soft).name}: capacity_factor=0.5 cannot be changed in a trained Soft: "
        "nothing of it can be",
    ]
    assert printed.count(f"{folder.name}: 0 there, 3 measured\n") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--groupings", "1"], "--groupings=1 leaves nothing to compare: give at least 2"),
        (
            ["--replace", "other_seed"],
            "--replace=other_seed is not for {run}: name a run of the same configuration and another seed "
            "too",
        ),
        (
            ["+eval=[fewshot,folder]", "eval.folder.path=/nowhere"],
            "eval.folder.path=/nowhere is no folder: give that of its images",
        ),
    ],
)
def test_what_any_study_refuses_is_said_before_anything_is_measured(
    words: list[str], reason: str, folder: Path, command: Any
) -> None:
    message = f"routerbench: {folder.name}: {reason.format(run=folder.name)}\n"
    assert command(folder, *words) == (2, "", message)
    assert "evaluations" not in record_of(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "eval needs folders of finished runs, such as results/runs/*"),
        (["a=b"], "eval needs folders of finished runs, such as results/runs/*"),
        (
            ["x", "--only", "capacty"],
            "--only=capacty is not one of: capacity, compute, batches, routers, images (did "
            "you mean capacity?)",
        ),
        (["x", "--capacity-factor", "many"], "--capacity-factor=many is neither a number nor dropless"),
        (
            ["x", "--capacity-factor", "inf"],
            "--capacity-factor=inf must be a finite number: dropless has slots for every token",
        ),
        (
            ["x", "--only", "capacity,,compute"],
            "--only=capacity,,compute has an empty value: give some, separated by commas",
        ),
        (["x", "--capacity-factor", "0"], "--capacity-factor=0.0 must be a number above 0"),
        (["x", "--top-k", "1,none"], "--top-k=none must be a whole number of at least 1"),
        (["x", "--batch-priority", "yes"], "--batch-priority=yes is not one of: true, false"),
        (["x", "--group", "images"], "--group=images is neither image nor a number of images"),
        (
            ["x", "--replace", "random,hush"],
            "--replace=hush is not one of: uniform, soft_identity, hash, random, drop_first, frozen, "
            "shuffled, other_layer, other_seed, other_seed_matched, other_seed_scores, "
            "other_seed_scores_matched (did you mean hash?)",
        ),
        (["x", "--seed", "-1"], "--seed=-1 must be a number of at least 0"),
        (["x", "--groupings", "0"], "--groupings=0 must be a whole number of at least 1"),
        (
            ["x", "batch_size=3"],
            "batch_size=3: a finished run has its settings; give those of eval alone, as +eval=imagenet_v2",
        ),
        (
            ["x", "+data@data=cifar10"],
            "+data@data=cifar10: a finished run has its settings; give those of eval alone, as "
            "+eval=imagenet_v2",
        ),
    ],
)
def test_words_that_mean_nothing(words: list[str], message: str, command: Any) -> None:
    assert command(*words) == (2, "", f"routerbench: {message}\n")


def test_settings_of_eval() -> None:
    from routerbench.evaluations.settings import eval_settings

    assert eval_settings([]) == {}
    words = ["+eval=fewshot", "+data@eval.fewshot.data=cifar100", "eval.fewshot.data.path=/some"]
    found = eval_settings([*words, "eval.fewshot.num_draws=2"]).fewshot
    assert (found.num_draws, found.data.name, found.data.source.path) == (2, "cifar100", "/some")
    with pytest.raises(ValueError, match=r"^eval\.fewshot\.num_draws=2 is not a setting"):
        eval_settings(["eval.fewshot.num_draws=2"])


def study_of(*takes: Callable[[], dict[str, Any]]) -> Any:
    """A study with so many measurements, in place of one that takes long."""
    from routerbench.evaluations.measurement import Measurement

    def measurements(run: "FinishedRun", asked: "Asked") -> "Iterator[Measurement]":
        for number, take in enumerate(takes):
            yield Measurement(f"group={number}", take)

    return lambda study: measurements


def test_killed_and_started_again_it_goes_on(
    folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerbench.evaluations import run

    def killed() -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measurements_of", study_of(lambda: {"a": 1.0}, killed))
    assert command(folder, "--only", "batches")[0] == 130
    assert list(record_of(folder)["evaluations"]["batches"]) == ["group=0"]
    monkeypatch.setattr(run, "measurements_of", study_of(killed, lambda: {"a": float("nan")}))
    code, printed, _ = command(folder, "--only", "batches")
    assert (code, f"{folder.name}: 1 there, 1 measured\n" in printed) == (0, True)
    assert record_of(folder)["evaluations"]["batches"]["group=1"]["a"] is None  # JSON knows no nan


def test_what_another_command_measured_meanwhile_is_kept(
    folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerbench.evaluations import run
    from routerbench.evaluations.measurement import METHOD
    from routerbench.load import open_run
    from routerbench.records import keep_evaluation

    data = open_run(folder, device="cpu").test.fingerprint
    origin = {"method": METHOD, "seconds": 1.0, "data": data}

    def beside() -> dict[str, Any]:
        keep_evaluation(folder, record_of(folder), "routers", "random", {"b": 2.0})
        keep_evaluation(folder, record_of(folder), "batches", "group=1", {"a": 3.0, "origin": origin})
        return {"a": 1.0}

    monkeypatch.setattr(run, "measurements_of", study_of(beside, lambda: {"a": -1.0}))
    _, printed, _ = command(folder, "--only", "batches")
    assert f"{folder.name}: 1 there, 1 measured\n" in printed
    found = record_of(folder)["evaluations"]
    assert (found["routers"]["random"], found["batches"]["group=1"]["a"]) == ({"b": 2.0}, 3.0)


def test_two_commands_at_once_lose_nothing(folder: Path, fork_server: ForkServer) -> None:
    words = ["-m", "routerbench", "eval", folder, "--device", "cpu", "--threads", "1"]
    grids = (["--capacity-factor", "0.25,0.5"], ["--capacity-factor", "1.5,2"])
    rest = ["--only", "capacity", "--top-k", "1", "--batch-priority", "false"]
    before = record_of(folder)["metrics"]
    at_once = [fork_server.start(*words, *rest, *grid) for grid in grids]
    assert [process.wait() for process in at_once] == [0, 0]
    factors = {f"capacity_factor={factor}" for factor in ("0.25", "0.5", "1.5", "2.0")}
    assert record_of(folder)["evaluations"]["capacity"].keys() == {"dropless=true", "trained", *factors}
    assert record_of(folder)["metrics"] == before


def test_a_run_that_was_trained_again_meanwhile_is_refused(
    folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerbench.evaluations import run

    def trained_again() -> dict[str, Any]:
        record = record_of(folder)
        record["provenance"]["finished"] = "later"
        (folder / "record.json").write_text(json.dumps(record))
        return {"a": 1.0}

    monkeypatch.setattr(run, "measurements_of", study_of(trained_again))
    code, _, complained = command(folder, "--only", "batches")
    assert code == 2
    assert complained == (
        f"routerbench: {folder.name}: path={folder} has been trained again meanwhile: ask the new run\n"
    )
    assert "evaluations" not in record_of(folder)


def test_evaluations_that_are_no_results_are_refused(folder: Path, command: Any) -> None:
    record = record_of(folder)
    for damaged in ({"capacity": [1]}, {"capacity": {"trained": 1}}):
        (folder / "record.json").write_text(json.dumps({**record, "evaluations": damaged}))
        assert command(folder, *FEW)[2] == (
            f"routerbench: {folder.name}: path={folder} has a record.json whose evaluations are not results "
            "by study and mode: take them out of it, and they are measured again\n"
        )


def test_a_full_disk_is_one_line(folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from routerbench import records

    command(folder, *FEW)
    before = (folder / "record.json").read_bytes()

    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.Path, "write_text", full)
    code, _, complained = command(folder, *FEW, "--again")
    assert code == 2
    assert complained == (
        f"routerbench: {folder.name}: {folder}/record.json cannot be written: No space left on device\n"
    )
    assert (folder / "record.json").read_bytes() == before


def test_runs_of_another_configuration_are_opened_when_it_is_their_turn(
    trained: Trained, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that not all are in memory at once, though replacing routers takes the other seeds of a run."""
    from routerbench import load
    from routerbench.evaluations import run

    words = ("router=token_choice", "router=expert_choice", "router=token_choice seed=1")
    runs = [trained(*each.split()).folder for each in words]
    copies = [Path(shutil.copytree(run, tmp_path / "runs" / run.name)) for run in runs]
    happened: list[str] = []
    open_run = load.open_run

    def opened(folder: Path, **further: Any) -> "FinishedRun":
        happened.append(f"opened {copies.index(folder)}")
        return open_run(folder, **further)

    def asked_of(study: str) -> Any:
        def measurements(run: "FinishedRun", asked: "Asked") -> "Iterator[Measurement]":
            happened.append(f"asked {copies.index(run.folder)} beside {len(asked.others)}")
            yield from ()

        return measurements

    monkeypatch.setattr(load, "open_run", opened)
    monkeypatch.setattr(run, "measurements_of", asked_of)
    assert command(*copies, "--only", "routers")[0] == 0
    together = ["opened 0", "opened 2", "asked 0 beside 1", "asked 2 beside 1"]
    assert happened == [*together, "opened 1", "asked 1 beside 0"]


def test_too_little_memory_is_one_line(folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from routerbench.evaluations import run

    def too_much() -> dict[str, Any]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(run, "measurements_of", study_of(too_much))
    assert command(folder, "--only", "batches")[2] == (
        f"routerbench: {folder.name}: --batch-size=64 takes more memory than cpu has: give fewer\n"
    )


def test_a_study_that_asks_nothing_of_a_run_says_why(trained: Trained, tmp_path: Path, command: Any) -> None:
    names = {router: trained(f"router={router}").folder for router in ("dense", "soft")}
    copies = {router: shutil.copytree(run, tmp_path / run.name) for router, run in names.items()}
    code, printed, complained = command(copies["dense"], "--only", "compute,batches,routers,images")
    assert (code, complained) == (0, "")
    name = copies["dense"].name
    assert printed.splitlines() == [
        *(
            f"{name}  {study}  nothing to measure: a dense run has no routers"
            for study in ("compute", "batches", "routers")
        ),
        f"{name}  images  nothing to measure: say which images, such as +eval=imagenet_v2 (docs/eval.md)",
        f"{name}: 0 there, 0 measured",
    ]
    _, printed, _ = command(copies["soft"], "--only", "compute", "--json")
    (told,) = json.loads(printed)["runs"]
    assert told["nothing"] == {"compute": "its routers have no capacity that could be less"}


@pytest.mark.parametrize(("study", "told"), [("images", False), ("capacity", True)])
def test_where_pictures_are_is_told_where_there_are_some(
    capsys: pytest.CaptureFixture[str], study: str, told: bool
) -> None:
    from routerbench.evaluations.run import Entry
    from routerbench.evaluations.show import console_for, print_tables

    print_tables("a", [Entry(study, "fewshot", {"top1": 0.5}, measured=False)], "a/eval", console_for(False))
    assert ("pictures and their numbers: a/eval" in capsys.readouterr().out) == told


def test_a_table_tells_what_says_most_with_its_interval(folder: Path, command: Any) -> None:
    code, printed, _ = command(folder, "--only", "routers", "--replace", "random")
    header, *lines = printed[printed.index("  routers\n") :].splitlines()[1:]
    assert code == 0
    assert re.split(r" {2,}", header.strip())[:3] == ["mode", "top1 lost points", "top1 %"]
    assert re.match(r"\s*random +-?\d+\.\d\d \[-?\d+\.\d\d, -?\d+\.\d\d\]", lines[0])
    assert lines[-1] == f"pictures and their numbers: {folder / 'eval'}"


def test_threads_are_taken_before_a_run_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(opening, "_refusal", lambda folder: None)
    for threads in (None, 3):
        assert opening.be_ready(argparse.Namespace(modules=[], threads=threads), [tmp_path]) == []
    assert taken == [3]
