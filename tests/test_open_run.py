"""Every way in which the folder of a run can be wrong is refused in one line, and nothing in it executes."""

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from routerbench.commands import train
from routerbench.data import hub
from routerbench.data.sources import Source
from routerbench.evaluations.seeing.observation import observe
from routerbench.identity import identity
from routerbench.load import FinishedRun, load_run, open_run

from .test_load import composed

WORDS = [
    *("data=digits", "augment=none", "epochs=1", "batch_size=512", "router=token_choice", "num_experts=2"),
    *("+model.arguments.depth=2", "+model.arguments.embed_dim=16", "+model.arguments.num_heads=2"),
    *("ema.decay=0.5", "ema.ranked=false", "runtime.wandb=disabled", "runtime.backend=bmm"),
]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    assert train.train([*WORDS, f"runtime.results={results}"]) == 0
    (run,) = (results / "runs").iterdir()
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(trained, tmp_path / trained.name)


def refused(run: Path, open_: Callable[..., Any] = open_run, **asked: Any) -> str:
    with pytest.raises(ValueError, match=f"^{re.escape(f'path={run}')}[ :/]") as caught:
        open_(run, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"path={run}").strip(" :/")


def change_record(run: Path, change: Change) -> None:
    record = json.loads((run / "record.json").read_text())
    change(record)
    (run / "record.json").write_text(json.dumps(record))


def change_config(run: Path, change: Change) -> None:
    """Change what was run, in both places where it stands."""
    config = OmegaConf.load(run / "config.yaml")
    change(config)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    change_record(run, lambda record: record.update(config=OmegaConf.to_container(config)))


def opened(run: Path, **asked: Any) -> FinishedRun:
    return open_run(run, device="cpu", **asked)


def test_a_whole_run_opens(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(run)
    assert found.run_id == found.folder.name == run.name
    assert not any(module.training for module in found.model.modules())
    assert sum(len(labels) for _, labels in found.batches()) == len(found.test.labels)
    assert observe(found, found.batches()).correct.mean() == found.record["metrics"]["test/top1"]
    monkeypatch.chdir(run)
    assert opened(Path()).folder == run  # its name is asked of the file system
    assert {len(images) for images, _ in opened(run, batch_size=7).batches()} == {
        7,
        len(found.test.labels) % 7,
    }


def test_raw_weights_or_their_average(run: Path) -> None:
    one, other = (opened(run, weights=name).model.state_dict() for name in ("raw", "ema"))
    assert any(not torch.equal(one[key], other[key]) for key in one)
    (run / "weights_ema.safetensors").unlink()
    with pytest.raises(
        ValueError, match=re.escape(f"weights=ema is not what the run in {run} left: take weights=raw")
    ):
        opened(run, weights="ema")


NO_RUN = "has no config.yaml: give the folder of a finished run"


def test_a_device_without_the_memory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")

    large = torch.nn.Identity()
    monkeypatch.setattr(large, "to", full)
    monkeypatch.setattr("routerbench.load._model", lambda *_: large)
    assert refused(run, device="cpu") == (
        "has a model for which --device=cpu has not the memory: free some, or take another"
    )


def test_folders_of_no_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for folder in (tmp_path / "gone", tmp_path / "empty", run / "config.yaml", tmp_path / "loop"):
        assert refused(folder) == refused(folder, load_run) == NO_RUN
    assert refused(tmp_path / ("a" * 300)) == "config.yaml cannot be read: File name too long"


@pytest.mark.parametrize(
    ("lost", "problem"),
    [
        ("config.yaml", NO_RUN),
        ("record.json", "has no record.json: the run is not over, train it to its end first"),
        ("weights.safetensors", "has no weights.safetensors: give the folder of a finished run"),
    ],
)
def test_what_is_missing(lost: str, problem: str, run: Path) -> None:
    (run / lost).unlink()
    assert refused(run) == problem
    (run / lost).symlink_to(run / lost)
    assert refused(run) == problem
    (run / lost).unlink()
    os.mkfifo(run / lost)  # on which a reader would wait
    of_no_file = f"has a {lost} that is no file: give the folder of a finished run"
    assert refused(run) == (problem if lost == "weights.safetensors" else of_no_file)


@pytest.mark.parametrize("name", ["config.yaml", "record.json", "weights.safetensors"])
def test_what_may_not_be_read(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Path.open

    def denied(self: Path, *words: Any, **named: Any) -> Any:
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return usual(self, *words, **named)

    def denied_text(self: Path, encoding: str) -> str:
        with denied(self, encoding=encoding) as file:
            return file.read()

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(Path, "read_text", denied_text)
    assert refused(run) == f"{name} cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"status": "failed"}, "is of a run that has failed: give one that is done"),
        ({"status": "diverged"}, "is of a run that has diverged: give one that is done"),
        ({"status": "oom"}, "is of a run that has run out of memory: give one that is done"),
        (
            {"schema": 99},
            "has a record of version 99, and this program knows up to 1: take the program that wrote it, or "
            "a later one",
        ),
        (
            {"run_id": "other"},
            "has the record of run other: name the folder so, or bring its own record.json back",
        ),
        ({"evaluation": []}, "has a record.json that is damaged: bring it back, or give another run"),
        ({"provenance": "here"}, "has a record.json that is damaged: bring it back, or give another run"),
        (
            {"provenance": {"weights_sha256": 3}},
            "has a record.json that is damaged: bring it back, or give another run",
        ),
        (
            {"config": {"router": {"name": "soft"}, "seed": 0}},
            "has a config.yaml that is not that of its record: bring it back",
        ),
    ],
)
def test_records_of_other_runs(change: dict[str, Any], problem: str, run: Path) -> None:
    change_record(run, lambda record: record.update(change))
    assert refused(run) == problem


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", "null", "[]", '{"schema": 1}'])
def test_damaged_records(text: str, run: Path) -> None:
    (run / "record.json").write_text(text)
    for open_ in (open_run, load_run):
        assert refused(run, open_) == "has a record.json that is damaged: bring it back, or give another run"


def test_a_model_is_not_read_from_a_folder_of_a_later_version(run: Path) -> None:
    change_record(run, lambda record: record.update(schema=99))
    assert refused(run, load_run).startswith("has a record of version 99, and this program knows up to 1: ")


def test_a_copied_folder_needs_its_name(run: Path, tmp_path: Path) -> None:
    renamed = run.rename(tmp_path / "best")
    assert refused(renamed).startswith(f"has the record of run {run.name}: name the folder so, ")
    load_run(renamed)  # of which nothing goes into a record


def flipped(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)


def of_another_run(weights: Path) -> None:
    save_file({key: value + 1 for key, value in load_file(weights).items()}, weights)


def truncated(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-4])


class Evil:
    """Executes as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(weights: Path) -> None:
    weights.write_bytes(pickle.dumps({"head.weight": Evil(weights.with_name("ran"))}))


@pytest.mark.parametrize("damage", [flipped, of_another_run, truncated, pickled])
@pytest.mark.parametrize("open_", [open_run, load_run])
def test_other_weights_than_were_written(
    damage: Callable[[Path], None], open_: Callable[..., Any], run: Path
) -> None:
    damage(run / "weights.safetensors")
    assert refused(run, open_) == (
        "has a weights.safetensors that is not the one that was written there (its checksum is another): "
        "bring it back, or train the run again"
    )
    assert not (run / "ran").exists()


@pytest.mark.parametrize("damage", [truncated, pickled])
def test_a_record_from_before_there_were_checksums(damage: Callable[[Path], None], run: Path) -> None:
    change_record(run, lambda record: record["provenance"].pop("weights_sha256"))
    opened(run)
    damage(run / "weights.safetensors")
    assert refused(run) == "cannot be read as weights (SafetensorError): give another file"
    assert not (run / "ran").exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[" * 50_000 + "]" * 50_000, "YAMLError"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "YAMLError"),
        ("a: !!python/object/apply:os.mkdir [ran]", "ConstructorError"),
        ("a: {_target_: [", "ParserError"),
        ("\x00", "ReaderError"),
        ("placement: '${a'", "GrammarParseError"),
    ],
)
def test_configurations_that_cannot_be_read(text: str, error: str, run: Path) -> None:
    (run / "config.yaml").write_text(text)
    for open_ in (open_run, load_run):
        assert refused(run, open_) == f"has a config.yaml that cannot be read ({error}): give another run"


def test_configurations_that_are_too_large(run: Path) -> None:
    with (run / "config.yaml").open("w") as file:
        file.truncate(100_000_000)
    assert refused(run) == ("has a config.yaml of more than 131072 bytes, which no run has: give another run")


@pytest.mark.parametrize("text", ["${oc.env:HOME}", '"\\x24{oc.env:HOME}"'])
def test_interpolations(text: str, run: Path) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(f"more: {text}\n")
    assert refused(run) == "has a config.yaml with interpolations (${...}), which no run has"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that can be imported, and leaves a file when it is."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef source(**words): ...")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "ran"


@pytest.mark.parametrize(
    "target",
    [
        *("evil.source", "evil", "", "os.system", "subprocess.run", "shutil.rmtree", "builtins.eval"),
        *(
            "routerbench.data.sources.Path",
            "routerbench.data.sources.EMBEDDED",
            "routerbench.data.evil.source",
        ),
        *(
            "routerbench.data.sources.CIFAR10",
            "routerbench.data.sources.np.load",
            "torch.load",
            "runpy.run_path",
        ),
        *("hydra.utils.instantiate", "torch.hub.load", "pathlib.Path.touch", "routerbench.load.load_run"),
    ],
)
def test_what_makes_no_data_set_is_not_called(target: str, run: Path, evil: Path) -> None:
    change_config(run, lambda config: config.data.update(source={"_target_": target, "path": str(evil)}))
    assert refused(run) == (
        f"has data.source._target_={target}, which is no function of this package that returns a Source: if "
        "you trust it, give it that return type, and import it first (eval and inspect: --import FILE)"
    )
    assert not evil.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("source", [None, "digits", 3, [], ["_target_"]])
def test_data_sets_without_a_function(source: Any, run: Path) -> None:
    change_config(run, lambda config: config.data.update(source=source))
    assert refused(run).startswith("has data.source._target_=None, which is no function of this package")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", {"_target_": "pathlib.Path.touch", "self": "ran"}),
        ("path", [{"_target_": "os.mkdir"}]),
        ("_args_", ["a"]),
        ("_partial_", True),
    ],
)
def test_a_data_set_has_plain_settings(key: str, value: Any, run: Path) -> None:
    change_config(run, lambda config: config.data.source.update({key: value}))
    assert refused(run) == f"has data.source.{key}={value}, which no run has"


def test_an_augmentation_is_never_built(run: Path, evil: Path) -> None:
    change_config(run, lambda config: config.augment.update(_target_="evil.source"))
    opened(run)
    assert not evil.exists()


@pytest.mark.parametrize("target", ["evil.Router", "subprocess.evil", "torch.utils.bundled_inputs.A", "evil"])
def test_a_router_of_a_module_that_is_not_imported(target: str, run: Path, evil: Path) -> None:
    change_config(run, lambda config: config.router.update(_target_=target))
    loaded = set(sys.modules)
    for open_ in (open_run, load_run):
        assert refused(run, open_).startswith(
            f"has router._target_={target}, which is not of this package: if you trust it, import "
        )
    assert not evil.exists()
    assert set(sys.modules) == loaded


def mine(size: int) -> Source:
    """A data set of a user."""
    digits = composed("data=digits").data.source
    assert size == 3
    return __import__("hydra").utils.instantiate(digits)


def test_a_data_set_of_an_imported_module_is_trusted(run: Path) -> None:
    sys.modules["of_a_user"] = sys.modules[__name__]
    try:
        change_config(
            run, lambda config: config.data.update(source={"_target_": "of_a_user.mine", "size": 3})
        )
        opened(run)
    finally:
        del sys.modules["of_a_user"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda config: config.model.update(name="vit_of_nobody"),
            "model.name=vit_of_nobody is not a timm model",
        ),
        (
            lambda config: config.model.update(name="hf-hub:evil/model"),
            "model.name=hf-hub:evil/model is not a timm model",
        ),
        (lambda config: config.update(precision="int8"), "precision=int8 is not one of: fp32, bf16, fp16"),
        (
            lambda config: config.update(batch_size="all"),
            "batch_size=all must be a whole number of at least 1",
        ),
        (
            lambda config: config.update(num_experts=10**9),
            "path=RUN has other weights than its config.yaml says: ",
        ),
        (lambda config: config.model.update(drop_path_rate=[1]), "path=RUN: model.name=pocket_vit with {"),
        (lambda config: config.pop("optim"), None),
        (
            lambda config: config.pop("precision"),
            "path=RUN has a config.yaml without precision: give the folder of a finished run",
        ),
        (
            lambda config: config.data.update(image_size=[]),
            "path=RUN has a config.yaml of which nothing can be made (IndexError",
        ),
    ],
)
def test_settings_that_no_run_has(change: Change, problem: str | None, run: Path) -> None:
    change_config(run, change)
    if problem is None:
        opened(run)
        return
    with pytest.raises(ValueError, match=f"^{re.escape(problem.replace('RUN', str(run)))}") as caught:
        opened(run)
    assert "\n" not in str(caught.value)


def test_nothing_is_read_but_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *words, **_: fetched.append(words))
    monkeypatch.setattr("timm.models._factory.load_checkpoint", lambda *words, **_: fetched.append(words))
    change_config(
        run, lambda config: config.model.arguments.update(pretrained=True, checkpoint_path="evil.pth")
    )
    opened(run)
    assert fetched == []


def images_of(config: DictConfig, folder: Path, num_classes: int) -> dict[str, Any]:
    """The data of a run on image files, of which some are written."""
    from PIL import Image

    for place in range(num_classes):
        for split in ("train", "val"):
            (folder / split / str(place)).mkdir(parents=True)
            Image.new("RGB", (32, 32), (20 * place,) * 3).save(folder / split / str(place) / "a.png")
    return {
        **config.data,
        **identity(composed("data=folder", f"data.path={folder}", "data.image_size=32"))["data"],
    }


def test_data_that_have_moved(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    change_config(run, lambda config: config.update(data=images_of(config, folder, 10)))
    assert len(opened(run).test.labels) == 10
    # Older records do not say what there was no choice of.
    change_config(run, lambda config: [config.data.source.pop(key) for key in ("test_split", "class_map")])
    assert len(opened(run).test.labels) == 10
    folder.rename(tmp_path / "moved")
    assert refused(run) == (
        f"data.path={str(folder)!r} is not a folder: data=folder needs one that holds train/ and val/, each "
        "with one folder of images per class (--data-path says where it is now)"
    )
    nowhere = tmp_path / "nowhere"
    assert refused(run, data_path=str(nowhere)).startswith(f"data.path={str(nowhere)!r} is not a folder: ")
    assert refused(run, data_path=str(nowhere)).endswith(" (--data-path says where it is now)")
    assert len(opened(run, data_path=str(tmp_path / "moved")).test.labels) == 10
    shutil.rmtree(tmp_path / "moved" / "train" / "9")
    shutil.rmtree(tmp_path / "moved" / "val" / "9")
    assert refused(run, data_path=str(tmp_path / "moved")) == (
        "has a model of 10 classes, and its data set now has 9: give that of the run by --data-path"
    )


def test_data_that_were_downloaded_are_not_fetched_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    digits = opened(run).test

    def cifar(*words: Any) -> Source:
        asked.append(words[-1])
        return Source(digits.dataset, digits.dataset, digits.class_names)

    monkeypatch.setattr("routerbench.data.sources.cifar", cifar)
    words = composed("data=cifar10", f"data.path={tmp_path}", "data.download=true")
    change_config(run, lambda config: config.data.update(identity(words)["data"]))
    opened(run)
    change_config(run, lambda config: config.data.source.update(download=True))
    opened(run)
    assert asked == [False, False]


def test_the_hub_sends_what_the_user_names_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def split(path: str, *words: Any) -> Any:
        asked.append(path)
        raise ValueError("not fetched")

    monkeypatch.setattr("routerbench.data.hub.open_split", split)
    source = identity(composed("data=hfds", "data.path=evil/set"))["data"]["source"]
    change_config(run, lambda config: config.data.update(source=source))
    said = (
        "has data.source.path=evil/set, which the hub may have to send: if you trust it, name it yourself by "
        "--data-path evil/set"
    )
    assert refused(run) == said
    # Under whatever name the function goes.
    monkeypatch.setattr("routerbench.data.sources.hfds", hub.hfds, raising=False)
    change_config(run, lambda config: config.data.source.update(_target_="routerbench.data.sources.hfds"))
    assert refused(run) == said
    assert asked == []
    assert refused(run, data_path="evil/set").startswith("not fetched")
    change_config(run, lambda config: config.data.source.update(path=str(tmp_path)))
    assert refused(run).startswith("not fetched")
    assert asked == ["evil/set", str(tmp_path)]


def test_words_of_the_command(run: Path) -> None:
    asked: dict[str, Any]
    for asked, problem in (
        ({"data_path": "/data"}, "--data-path=/data means nothing to data=digits, which is embedded"),
        ({"batch_size": 0}, "--batch-size=0 must be a whole number of at least 1"),
        ({"device": "tpu"}, "--device=tpu is no device: cpu, cuda, cuda:1 ... or auto"),
        ({"weights": "best"}, "weights=best is not one of: raw, ema"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
            open_run(run, **asked)
