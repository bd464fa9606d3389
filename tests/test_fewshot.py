"""The few-shot probe: the published numbers, a case by hand, and what it may not look at."""

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from routerbench import parts
from routerbench.build import build_backbone, sparsify
from routerbench.compose import compose_sweep
from routerbench.config import conf_dir
from routerbench.fewshot import (
    Probe,
    check_features,
    draw,
    features,
    fewshot,
    probe_features,
    ridge_accuracies,
)

if TYPE_CHECKING:
    from tests.conftest import ReadGolden

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", enabled=False)
GRID = [2.0**power for power in range(-10, 20)]


def test_the_published_accuracies(golden: "ReadGolden") -> None:
    published = golden("fewshot_d24", torch.float64)
    data, meta = published.arrays, published.meta
    one_prediction = 1 / len(data["y_test"]) + 1e-6  # the published code is in float32
    for row, shots in enumerate(meta["shots"]):
        chosen = draw(data["y_train"], shots, np.random.default_rng(meta["permute_seed"])).ravel()
        assert chosen.tolist() == data[f"train_indices_{shots}shot"].tolist()
        support, labels = data["x_train"][chosen], data["y_train"][chosen]
        accuracies = ridge_accuracies(support, labels, data["x_test"], data["y_test"], meta["l2_regs"])
        assert np.abs(accuracies - data["accuracy"][row]).max() <= one_prediction


def test_the_published_choice_of_lambda(golden: "ReadGolden") -> None:
    published = golden("fewshot_d24", torch.float64)
    data, meta = published.arrays, published.meta
    probe = Probe(meta["shots"], meta["l2_regs"], num_draws=1, seed=0, select="published")
    drawn = draw(data["y_train"], 10, np.random.default_rng(meta["permute_seed"]))
    metrics = probe_features(
        probe, drawn[None], data["x_train"], data["y_train"], data["x_test"], data["y_test"]
    )
    for row, shots in enumerate(meta["shots"]):
        assert metrics[f"fewshot/{shots}_l2"] == meta["best_l2"][str(shots)]
        assert metrics[f"fewshot/{shots}"] == pytest.approx(data["accuracy"][row].max(), abs=1e-6)
    assert not [name for name in metrics if name.endswith("_std")]  # of one draw


def by_solving(
    x: NDArray[Any], y: NDArray[Any], x_test: NDArray[Any], y_test: NDArray[Any], l2: float
) -> float:
    """The definition, by the normal equations."""
    mean, std = x.mean(0), x.std(0) + 1e-5
    x, x_test = (np.column_stack([(z - mean) / std, np.full(len(z), 100.0)]) for z in (x, x_test))
    targets = 2.0 * np.eye(y.max() + 1)[y] - 1
    weights = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets)
    return float(((x_test @ weights).argmax(1) == y_test).mean())


@pytest.mark.parametrize("num_images", [6, 20, 33, 80])  # fewer and more than features
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_it_is_the_solution_of_the_normal_equations(num_images: int, kind: Any) -> None:
    rng = np.random.default_rng(num_images)
    y, y_test = np.arange(num_images) % 3, rng.integers(3, size=50)
    centres = rng.normal(size=(3, 32))
    x, x_test = (centres[labels] + rng.normal(size=(len(labels), 32)) for labels in (y, y_test))
    expected = [by_solving(x, y, x_test, y_test, l2) for l2 in GRID]
    inputs = [kind(values) for values in (x, y, x_test, y_test)]
    assert ridge_accuracies(*inputs, l2=GRID).tolist() == pytest.approx(expected, abs=1e-12)
    assert ridge_accuracies(*inputs, l2=GRID[3]).tolist() == pytest.approx(expected[3:4], abs=1e-12)


def test_two_classes_on_a_line() -> None:
    # Mean 0 and standard deviation 1: the outputs of the classes are -x and x, with no bias to speak of.
    x, y = np.array([[-1.0], [1.0]]), np.array([0, 1])
    x_test, y_test = np.array([[-0.1], [0.1], [0.1], [5.0]]), np.array([0, 1, 0, 1])
    assert ridge_accuracies(x, y, x_test, y_test, [1e-3, 1e3]).tolist() == [0.75, 0.75]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x_train": np.zeros(4)}, "x_train is of shape (4,): give features (images, features) of one image"),
        ({"x_test": np.zeros((2, 4))}, "x_test has 4 features, and x_train 3: give the same model's"),
        ({"x_test": np.full((2, 3), np.nan)}, "x_test has features that are no finite numbers"),
        ({"y_train": np.zeros(3, int)}, "y_train is of shape (3,), and there are 4 images: give a label for"),
        ({"y_test": np.zeros(2)}, "y_test has other values than classes: give whole numbers of at least 0"),
        ({"y_train": np.full(4, -1)}, "y_train has other values than classes: give whole numbers of at"),
        ({"l2": [1.0, 0.0]}, "l2=0.0 must be a number above 0"),
    ],
)
def test_inputs_that_do_not_fit(change: dict[str, Any], text: str) -> None:
    inputs = {
        "x_train": np.eye(4, 3),
        "y_train": np.array([0, 1, 0, 1]),
        "x_test": np.eye(2, 3),
        "y_test": np.array([0, 1]),
        "l2": 1.0,
    }
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        ridge_accuracies(**{**inputs, **change})


SETTINGS = {"shots": [1, 2], "l2": [1.0], "num_draws": 2, "seed": 0, "select": "held_out"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shots": []}, "eval.fewshot.shots=[] is empty: give at least one"),
        ({"shots": [1, 0]}, "eval.fewshot.shots=0 must be a whole number of at least 1"),
        ({"l2": [-1.0]}, "eval.fewshot.l2=-1.0 must be a number above 0"),
        ({"num_draws": 0}, "eval.fewshot.num_draws=0 must be a whole number of at least 1"),
        ({"seed": -1}, "eval.fewshot.seed=-1 must be a number of at least 0"),
        ({"select": "best"}, "eval.fewshot.select=best is not one of: held_out, published"),
        (
            {"num_draws": 1},
            "eval.fewshot.num_draws=1 leaves no other draw to choose lambda on: give at least 2, or "
            "eval.fewshot.select=published",
        ),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Probe(**{**SETTINGS, **change})


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            [0, 0, 0, 1],
            "eval.fewshot.shots=[1, 2] needs 2 images of every class, and class 1 has 1: give at most that",
        ),
        (
            [0, 0, 1, 1],
            "eval.fewshot.shots=[1, 2] takes every image, and leaves none to choose lambda on: give fewer, "
            "or eval.fewshot.select=published",
        ),
    ],
)
def test_pools_that_are_too_small(labels: list[int], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Probe(**SETTINGS).draws(np.array(labels))


def test_draws_hang_on_seed_draw_and_labels_alone() -> None:
    labels = np.random.default_rng(0).integers(4, size=200)
    first = Probe(**SETTINGS).draws(labels)
    np.random.seed(7)
    torch.manual_seed(7)
    larger = Probe(**{**SETTINGS, "shots": [5, 3], "num_draws": 3, "select": "published"}).draws(labels)
    for of_two, of_five in zip(first, larger, strict=False):
        assert of_five.shape == (4, 5)
        assert of_two.tolist() == of_five[:, :2].tolist()  # more shots and more draws only add images
        assert (labels[of_five] == np.arange(4)[:, None]).all()
        assert len(np.unique(of_five)) == 20
    assert first[0].tolist() != first[1].tolist()
    assert first[0].tolist() != Probe(**{**SETTINGS, "seed": 1}).draws(labels)[0].tolist()


def test_lambda_is_chosen_without_the_test_set() -> None:
    rng = np.random.default_rng(0)
    y, y_test = np.arange(60) % 3, np.arange(90) % 3
    centres = rng.normal(size=(3, 16))
    x, x_test = (centres[labels] + rng.normal(size=(len(labels), 16)) for labels in (y, y_test))
    held_out = Probe([1, 5], GRID, num_draws=3, seed=0, select="held_out")
    draws = np.stack(held_out.draws(y))
    found = probe_features(held_out, draws, x, y, x_test, y_test)
    upside_down = probe_features(held_out, draws, x, y, x_test, (y_test + 1) % 3)
    published = probe_features(Probe([1, 5], GRID, 3, 0, "published"), draws, x, y, x_test, y_test)
    for shots in (1, 5):
        assert found[f"fewshot/{shots}_l2"] == upside_down[f"fewshot/{shots}_l2"]
        assert found[f"fewshot/{shots}"] <= published[f"fewshot/{shots}"] <= 1
    # The accuracies of five shots, from the definition.
    support = [rows.ravel() for rows in draws]
    expected = [by_solving(x[s], y[s], x_test, y_test, found["fewshot/5_l2"]) for s in support]
    assert found["fewshot/5"] == pytest.approx(np.mean(expected))
    assert found["fewshot/5_std"] == pytest.approx(np.std(expected, ddof=1))


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(images.split(7), labels.split(7), strict=True)


@pytest.mark.parametrize("name", ["pocket_vit", "pocket_convnext", "pocket_convnext_iso", "resnet10t"])
def test_features_are_what_the_classifier_sees(name: str) -> None:
    model: Any = build_backbone(name, num_classes=10, image_size=32, drop_path_rate=0.5).train()
    images, labels = torch.randn(10, 3, 32, 32), torch.arange(10)
    seen, of = features(model, batches(images, labels), CPU, FP32)
    assert model.training
    assert not seen.requires_grad
    assert torch.equal(of, labels)
    classified = model.get_classifier()(seen)
    torch.testing.assert_close(classified, model.eval()(images), atol=1e-5, rtol=1e-5)


def test_a_model_without_such_features_is_refused_by_its_name() -> None:
    with torch.device("meta"):
        check_features(build_backbone("pocket_convnext", 2, 32), "pocket_convnext", 32)
    line = "eval.fewshot is not for model.name=a, which has no features before its head: leave it out"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        check_features(torch.nn.Conv2d(3, 2, 1), "a", 32)


def test_the_settings_of_the_file_are_those_of_the_probe() -> None:
    settings: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "eval" / "fewshot.yaml"))
    probe = Probe(**settings)
    assert (probe.shots, probe.l2) == ([1, 5, 10, 25], GRID)
    assert probe.select == "held_out"


def test_the_images_of_a_model_are_looked_at_once() -> None:
    labels = torch.arange(40) % 4
    colours = torch.randn(4, 3, 1, 1)  # a class is a colour
    images = (colours[labels] + 0.1 * torch.randn(40, 3, 32, 32)).contiguous()
    model = sparsify(
        build_backbone("pocket_vit", 4, 32, depth=2, embed_dim=16, num_heads=2), "token_choice", 2, [1]
    )
    loaded: list[NDArray[Any]] = []

    def load(places: NDArray[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        loaded.append(places)
        return batches(images[places], labels[places])

    probe = Probe([1, 3], GRID, num_draws=2, seed=0, select="held_out")
    measure = partial(fewshot, model, probe, labels.numpy(), load)
    metrics = measure(batches(images, labels), CPU, FP32)
    (places,) = loaded
    assert places.tolist() == np.unique(probe.draws(labels.numpy())).tolist()
    names = {f"fewshot/{shots}{end}" for shots in (1, 3) for end in ("", "_l2", "_std")}
    assert metrics.keys() == names
    assert metrics["fewshot/3"] == 1.0  # four colours
    assert measure(batches(images, labels), CPU, FP32) == metrics


def composed(*words: str) -> DictConfig:
    (config,) = compose_sweep(
        ["+eval=fewshot", "router=dense", "runtime.workers=0", *words], None, False
    ).configs
    parts.verify(config)
    return config


def test_the_support_of_a_run_is_of_its_training_set() -> None:
    config = composed("data=digits", "augment=crop_flip", "eval.fewshot.shots=[2]")
    data = parts.load_data(config)
    few = parts.load_fewshot(config, data)
    assert few is not None
    assert len(few.labels) == 1797 - 355
    assert few.test.num_images == 355
    (batch,) = few.load(np.array([5, 900]))
    (twice,) = few.load(np.array([5, 900]))
    assert torch.equal(batch[0], twice[0])  # not augmented
    assert batch[1].tolist() == few.labels[[5, 900]].tolist()
    model, _ = parts.start(config, data.num_classes, None)
    metrics = fewshot(model, few.probe, few.labels, few.load, few.test.epoch(0), CPU, FP32)
    assert 0 < metrics["fewshot/2"] < 1
    assert parts.load_fewshot(compose_sweep([], None, False).configs[0], data) is None


@pytest.mark.parametrize("order", [1, -1])
def test_the_support_may_be_of_another_set(order: int) -> None:
    words = ["+eval=fewshot", "+data@eval.fewshot.data=digits"][::order]
    (config,) = compose_sweep(words, None, False).configs
    few = parts.load_fewshot(config, parts.load_data(config))
    assert few is not None
    assert len(few.labels) == 1797 - 355


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["eval.fewshot.shots=[1000]"],
            "eval.fewshot.shots=[1000] needs 1000 images of every class, and class 0 has 959",
        ),
        (
            ["+data@eval.fewshot.data=digits", "eval.fewshot.data.image_size=64"],
            "eval.fewshot.data.image_size=64 is not that of the model: give 32",
        ),
        (
            ["+data@eval.fewshot.data=folder", "eval.fewshot.data.on_corrupt=skip"],
            "data.on_corrupt=skip leaves images out, and eval.fewshot draws its own beforehand: say error",
        ),
        (
            [
                "+data@eval.fewshot.data=folder",
                "eval.fewshot.data.path=/no",
                "eval.fewshot.data.image_size=32",
            ],
            "data.path='/no' is not a folder: data=folder needs one that holds ",
        ),
    ],
)
def test_what_cannot_be_probed_is_refused_before_training(words: list[str], text: str) -> None:
    config = composed(*words)
    data = parts.load_data(config)
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        parts.load_fewshot(config, data)
