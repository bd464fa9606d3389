"""Other images: folders of the run's own classes, ImageNet-C in small, and probes of the features."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from routerbench.compose import compose_sweep
from routerbench.data.extra import imagenet_classes
from routerbench.evaluations.images.study import measurements
from routerbench.evaluations.measurement import Asked, basis_of
from routerbench.load import FinishedRun
from routerbench.records import keep_evaluation, own_record

Trained = Callable[..., FinishedRun]


def evaluations(*words: str) -> DictConfig:
    return compose_sweep(["data=digits", *words], None, False).configs[0].eval


def results(run: FinishedRun, *words: str) -> dict[str, Any]:
    asked = Asked(settings=evaluations(*words))
    return {measurement.mode: measurement.take() for measurement in measurements(run, asked)}


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def run(trained: Trained) -> FinishedRun:
    return trained("router=token_choice")


def test_a_folder_of_the_run_s_own_classes(run: FinishedRun, tmp_path: Path) -> None:
    # The test images of three classes as files: right are those that were right in the test.
    images, labels = run.test.dataset.images, run.test.labels  # type: ignore[union-attr]
    correct, right, chosen = np.load(run.folder / "correct.npy"), [], ("0", "3", "7")
    for place, label in enumerate(labels):
        if str(label) in chosen:
            save(tmp_path / str(label) / f"{place}.png", images[place].permute(1, 2, 0).numpy())
            right.append(correct[place])
    # At their own size a centre crop of all of it is the image itself.
    run = replace(run, test=replace(run.test, of_batches=whole(run)))
    (found,) = results(run, "+eval=folder", f"eval.folder.path={tmp_path}").values()
    assert found["top1"] == pytest.approx(np.mean(right))
    assert found["num_images"] == len(right)
    assert found["top1_low"] < found["top1"] < found["top1_high"]
    (tmp_path / "3").rename(tmp_path / "three")
    text = f"eval.folder: {tmp_path / 'three'} is of no class of the run, which are 0, 1, 2, 3, 4 and 5"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        results(run, "+eval=folder", f"eval.folder.path={tmp_path}")


def whole(run: FinishedRun) -> dict[str, Any]:
    decoding = run.test.of_batches["decoding"]
    crop = replace(decoding.centre_crop, crop_pct=1.0)
    return {**run.test.of_batches, "decoding": replace(decoding, centre_crop=crop, workers=0)}


@pytest.fixture
def of_imagenet(run: FinishedRun) -> FinishedRun:
    """A run of ImageNet's classes, whose model says class 7 whatever it sees."""
    linear = torch.nn.Linear(3 * 32 * 32, 1000)
    torch.nn.init.zeros_(linear.weight)
    linear.bias = torch.nn.Parameter(torch.eye(1000)[7])
    model = torch.nn.Sequential(torch.nn.Flatten(), linear)
    test = replace(run.test, class_names=imagenet_classes(), of_batches=whole(run))
    return replace(run, model=model.eval(), test=test)


def test_imagenet_c(of_imagenet: FinishedRun, tmp_path: Path) -> None:
    for part in ("fog/1", "snow/2"):
        for wnid in imagenet_classes():
            save(tmp_path / part / wnid / "0.png", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "snow" / "2" / imagenet_classes()[7] / "1.png", np.zeros((8, 8, 3), np.uint8))
    words = ("+eval=imagenet_c", f"eval.imagenet_c.path={tmp_path}")
    asked = Asked(settings=evaluations(*words))
    fog, snow, means = measurements(of_imagenet, asked)
    assert [found.mode for found in (fog, snow, means)] == [
        "imagenet_c/fog/1",
        "imagenet_c/snow/2",
        "imagenet_c",
    ]
    assert fog.take()["top1"] == pytest.approx(1 / 1000)
    assert snow.take()["top1"] == pytest.approx(2 / 1001)
    found = means.take()
    assert found["snow/error"] == pytest.approx(1 - 2 / 1001)
    assert found["top1"] == pytest.approx((1 / 1000 + 2 / 1001) / 2)
    assert found["severity_2/top1"] == pytest.approx(2 / 1001)
    assert "mce" not in found


def test_means_take_from_the_record_what_stands_there(of_imagenet: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "fog" / "1" / "n01440764").mkdir(parents=True)
    folder = shutil.copytree(of_imagenet.folder, tmp_path / "runs" / of_imagenet.folder.name)
    of_imagenet = replace(of_imagenet, folder=folder)  # the trained run is that of other tests too
    record = own_record(of_imagenet.folder)
    assert record is not None
    entry = {"top1": 0.25, "origin": basis_of(of_imagenet)}
    keep_evaluation(of_imagenet.folder, record, "images", "imagenet_c/fog/1", entry)
    words = ("+eval=imagenet_c", f"eval.imagenet_c.path={tmp_path}", "eval.imagenet_c.corruptions=[fog]")
    asked = Asked(settings=evaluations(*words))
    *_, means = measurements(of_imagenet, asked)
    assert means.take()["fog/error"] == 0.75


def test_probes_of_its_own_images_and_of_others(run: FinishedRun) -> None:
    words = ("+eval=[fewshot,linear_probe]", "eval.fewshot.shots=[5]", "eval.linear_probe.l2=[0.01]")
    own = results(run, *words)
    assert list(own) == ["fewshot", "linear_probe"]
    assert 0.1 < own["fewshot"]["shots_5"] < 1
    assert own["linear_probe"]["top1_low"] < own["linear_probe"]["top1"] < own["linear_probe"]["top1_high"]
    others = results(run, *words, "+data@eval.fewshot.data=landcover32", "eval.linear_probe.seed=1")
    assert list(others) == ["fewshot data=landcover32", "linear_probe"]


def test_the_end_of_a_training_finds_the_same(trained: Trained) -> None:
    run = trained("router=expert_choice", "+eval=linear_probe", "eval.linear_probe.l2=[0.01]")
    at_the_end = run.record["metrics"]
    (found,) = results(run, "+eval=linear_probe", "eval.linear_probe.l2=[0.01]").values()
    assert {f"linear_probe/{name}": value for name, value in found.items()} == pytest.approx(
        {name: value for name, value in at_the_end.items() if name.startswith("linear_probe/")}
    )


def test_refused(run: FinishedRun, of_imagenet: FinishedRun) -> None:
    assert list(measurements(run, Asked())) == []
    for own, words, text in (
        (
            run,
            ["+eval=imagenet_v2"],
            "eval.imagenet_v2 is for models of ImageNet-1k's 1000 classes, named by",
        ),
        (
            of_imagenet,
            ["+eval=imagenet_v2"],
            "eval.imagenet_v2.path=null is no folder: give that of its images",
        ),
        (
            run,
            [
                "+eval=linear_probe",
                "+data@eval.linear_probe.data=digits",
                "eval.linear_probe.data.image_size=64",
            ],
            "eval.linear_probe.data.image_size=64 is not that of the model: give 32",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
            results(own, *words)
    with pytest.raises(ValueError, match=r"^eval\.mine is no file of conf/eval: give \+eval=<one of them>$"):
        list(measurements(run, Asked(settings=OmegaConf.create({"mine": {"path": "x"}}))))
