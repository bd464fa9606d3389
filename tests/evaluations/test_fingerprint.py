"""An entry of a record stands for the images and settings that it was measured with, and for no others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from routerbench.compose import compose_sweep
from routerbench.data.extra import imagenet_classes
from routerbench.data.fingerprint import of_dataset, of_folder, of_several
from routerbench.data.image_files import PathFiles, Selected
from routerbench.data.sources import Arrays
from routerbench.evaluations.images.study import measurements
from routerbench.evaluations.measurement import Asked
from routerbench.evaluations.run import evaluate
from routerbench.load import FinishedRun

Trained = Callable[..., FinishedRun]


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> FinishedRun:
    run = trained("router=token_choice")
    return replace(run, folder=Path(shutil.copytree(run.folder, tmp_path / run.folder.name)))


def measured(run: FinishedRun, *words: str, study: str = "images") -> list[str]:
    settings = compose_sweep(["data=digits", *words], None, False).configs[0].eval
    few = Asked(settings=settings, capacity_factors=("dropless",), top_ks=(1,))
    return [entry.mode for entry in evaluate(run, [study], few, again=False) if entry.measured]


def save(path: Path, shade: int, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), shade, np.uint8)).save(path)


def test_arrays() -> None:
    images, labels = torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1])
    own = of_dataset(Arrays(images, labels))
    assert own == of_dataset(Arrays(images.clone(), labels.clone()))
    assert own["number"] == 2
    others = [Arrays(images + 1, labels), Arrays(images, labels.flip(0)), Arrays(images[:1], labels[:1])]
    assert len({of_dataset(one)["sha256"] for one in (Arrays(images, labels), *others)}) == 4


def test_files_wherever_they_lie(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for name in ("0.png", "1.png"):
            save(tmp_path / folder / "cat" / name, 0)

    def files(folder: str) -> PathFiles:
        return PathFiles.of([(str(tmp_path / folder / "cat" / f"{place}.png"), 0) for place in (0, 1)])

    one = Selected(files("a"), np.array([1]))
    assert of_dataset(files("a")) == of_dataset(files("b")) != of_dataset(one)
    assert of_folder(tmp_path / "a") == of_folder(tmp_path / "b")
    save(tmp_path / "b" / "cat" / "1.png", 0, size=64)
    assert of_dataset(files("a")) != of_dataset(files("b"))
    assert of_dataset(one) == of_dataset(Selected(files("a"), np.array([1])))
    assert of_folder(tmp_path / "a") != of_folder(tmp_path / "b")
    ends = [of_folder(tmp_path / "a"), of_folder(tmp_path / "b")]
    assert of_several(ends)["number"] == 4
    assert of_several(ends) != of_several(ends[::-1])


def test_a_set_in_another_folder_is_measured_again(run: FinishedRun, tmp_path: Path) -> None:
    save(tmp_path / "a" / "3" / "0.png", 0)
    save(tmp_path / "b" / "3" / "0.png", 200, size=64)
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    there = [
        measured(run, "+eval=folder", f"eval.folder.path={tmp_path / name}")
        for name in ("a", "a", "moved", "b", "b")
    ]
    assert there == [["folder"], [], [], ["folder"], []]


def test_a_probe_of_other_settings_is_measured_again(run: FinishedRun) -> None:
    words = ("+eval=fewshot", "eval.fewshot.l2=[1.0]", "eval.fewshot.num_draws=2")
    there = [measured(run, *words, f"eval.fewshot.shots=[{shots}]") for shots in (1, 1, 5)]
    assert there == [["fewshot"], [], ["fewshot"]]


def test_means_are_taken_anew_when_a_part_is_added(run: FinishedRun, tmp_path: Path) -> None:
    settings = compose_sweep(
        ["data=digits", "+eval=imagenet_c", f"eval.imagenet_c.path={tmp_path}"], None, False
    )
    of_imagenet = replace(run, test=replace(run.test, class_names=imagenet_classes()))

    def rests_on() -> dict[str, object]:
        asked = Asked(settings=settings.configs[0].eval)
        return {one.mode: dict(one.rests_on) for one in measurements(of_imagenet, asked)}

    save(tmp_path / "fog" / "1" / "n01440764" / "0.png", 0)
    before = rests_on()
    assert before == rests_on()
    save(tmp_path / "snow" / "1" / "n01440764" / "0.png", 0)
    after = rests_on()
    assert after["imagenet_c/fog/1"] == before["imagenet_c/fog/1"]
    assert after["imagenet_c"] != before["imagenet_c"]


def test_another_test_set_is_measured_again_in_every_study(run: FinishedRun) -> None:
    assert measured(run, study="capacity") == ["dropless=true", "trained"]
    assert measured(run, study="capacity") == []
    test = run.test.dataset
    assert isinstance(test, Arrays)
    other = replace(run, test=replace(run.test, dataset=Arrays(255 - test.images, test.labels)))
    assert measured(other, study="capacity") == ["dropless=true", "trained"]
