"""Augmentations on images small enough to work out by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf
from PIL import Image
from torchvision.transforms import Compose

from routerbench.data import sources
from routerbench.data.pixels import CentreCrop, as_pictures, normalise, resize
from routerbench.data.randomness import seeded
from routerbench.data.sources import Arrays
from routerbench.data.transforms import Augmentation, CropFlip, FileAugmentation, InceptionCrop

ONCE: dict[str, Any] = {"num_repeats": 1, "random_erasing": 0.0, "random_erasing_mode": "pixel"}
CONF = Path(__file__).parents[2] / "conf"
NEVER, ALWAYS = 0.99, 0.0  # a draw below the probability means yes
MIDDLE = 0.5  # of the possible shifts: none

# 1 2 3
# 4 5 6
# 7 8 9
SQUARE = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).expand(1, 3, 3, 3)


def changed(augment: CropFlip, *draws: float) -> list[list[int]]:
    result = augment.change(SQUARE, torch.tensor([draws]))
    assert torch.equal(result[:, 0], result[:, 2])
    return result[0, 0].tolist()


def test_each_flip_and_the_transpose_by_hand() -> None:
    augment = CropFlip(name="x", **ONCE, padding=1, hflip=0.5, vflip=0.5, transpose=0.5)
    assert changed(augment, MIDDLE, MIDDLE, NEVER, NEVER, NEVER) == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert changed(augment, MIDDLE, MIDDLE, ALWAYS, NEVER, NEVER) == [[7, 8, 9], [4, 5, 6], [1, 2, 3]]
    assert changed(augment, MIDDLE, MIDDLE, NEVER, ALWAYS, NEVER) == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert changed(augment, MIDDLE, MIDDLE, NEVER, NEVER, ALWAYS) == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]
    # A vertical flip, then a transpose: a quarter turn to the right.
    assert changed(augment, MIDDLE, MIDDLE, ALWAYS, NEVER, ALWAYS) == [[7, 4, 1], [8, 5, 2], [9, 6, 3]]


def test_a_shift_mirrors_the_border() -> None:
    augment = CropFlip(name="x", **ONCE, padding=1, hflip=0.0, vflip=0.0, transpose=0.0)
    # One row down: the row above the first is the second again, as in a mirror on the first.
    assert changed(augment, 0.0, MIDDLE, 0.0, 0.0, 0.0) == [[4, 5, 6], [1, 2, 3], [4, 5, 6]]
    # One column to the left.
    assert changed(augment, MIDDLE, 0.99, 0.0, 0.0, 0.0) == [[2, 3, 2], [5, 6, 5], [8, 9, 8]]


def test_the_eight_symmetries_are_eight() -> None:
    augment = CropFlip(name="x", **ONCE, padding=0, hflip=0.5, vflip=0.5, transpose=0.5)
    draws = torch.rand(200, 5, generator=torch.Generator().manual_seed(0))
    results = augment.change(SQUARE.expand(200, 3, 3, 3), draws)
    assert len(results.flatten(1).unique(dim=0)) == 8


def test_normalise_and_resize_by_hand() -> None:
    mean, std = torch.tensor([0.5, 0.0, 1.0]).view(3, 1, 1), torch.tensor([0.5, 1.0, 0.25]).view(3, 1, 1)
    white = torch.full((1, 3, 2, 2), 255.0)
    normalised = normalise(white, mean, std)
    assert normalised[0, :, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.0])
    pictures = as_pictures(normalised.numpy(), mean.flatten().tolist(), std.flatten().tolist())
    assert pictures[0, 0, 0].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert resize(white, 2) is white
    assert torch.allclose(resize(white, 5), torch.full((1, 3, 5, 5), 255.0))
    # Centres of pixels lie at a quarter and three quarters; of four at an eighth, three, five and seven.
    ramp = torch.tensor([0.0, 4.0]).expand(1, 3, 2, 2)
    assert resize(ramp, 4)[0, 0].tolist() == [[0.0, 1.0, 3.0, 4.0]] * 4


@pytest.mark.parametrize("name", ["hflip", "vflip", "transpose"])
def test_a_probability_out_of_range(name: str) -> None:
    settings: dict[str, Any] = {"hflip": 0.0, "vflip": 0.0, "transpose": 0.0, name: 1.5}
    with pytest.raises(ValueError, match=rf"^augment\.{name}=1\.5 is a probability: give 0 to 1$"):
        CropFlip(name="x", **ONCE, padding=0, **settings)


def test_a_negative_padding() -> None:
    with pytest.raises(ValueError, match=r"^augment\.padding=-1 must be 0 or more$"):
        CropFlip(name="x", **ONCE, padding=-1, hflip=0.0, vflip=0.0, transpose=0.0)


@pytest.mark.parametrize(
    ("rand_augment", "interpolation"), [("rand-x9", "bicubic"), ("more", "bicubic"), (None, "cubist")]
)
def test_settings_that_timm_does_not_know(rand_augment: str | None, interpolation: str) -> None:
    text = (
        f"augment.rand_augment={rand_augment!r}, augment.interpolation={interpolation!r}: timm knows one of "
        "them not; give for example rand-m9-mstd0.5-inc1 (or null) and bicubic"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        InceptionCrop(
            name="imagenet",
            scale=(0.08, 1.0),
            ratio=(0.75, 1.33),
            hflip=0.5,
            rand_augment=rand_augment,
            color_jitter=0.0,
            interpolation=interpolation,
            **ONCE,
        )


@pytest.mark.parametrize("path", sorted((CONF / "augment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_augmentation_can_be_built(path: Path) -> None:
    augment = instantiate(OmegaConf.load(path))
    assert isinstance(augment, Augmentation)
    assert augment.name == path.stem


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_set_says_what_a_run_needs(path: Path) -> None:
    config = OmegaConf.load(path)
    assert config.name == path.stem
    assert config.path is None
    assert len(config.mean) == len(config.std) == 3
    assert config.image_size > 0
    assert get_method(config.source._target_).__name__ == path.stem
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("name", ["landcover32", "digits"])
def test_mean_and_deviation_are_those_of_the_training_images(name: str) -> None:
    config = OmegaConf.load(CONF / "data" / f"{name}.yaml")
    train = getattr(sources, name)().train
    assert isinstance(train, Arrays)
    pixels = train.images.transpose(0, 1).flatten(1).double() / 255
    assert list(config.mean) == pytest.approx(pixels.mean(1).tolist(), abs=1e-4)
    assert list(config.std) == pytest.approx(pixels.std(1).tolist(), abs=1e-4)


def file_augmentation(name: str, **changes: Any) -> FileAugmentation:
    augment = instantiate(OmegaConf.load(CONF / "augment" / f"{name}.yaml"), **changes)
    assert isinstance(augment, FileAugmentation)
    return augment


def steps(name: str, **changes: Any) -> list[str]:
    """The names of the transforms of an augmentation, in order, for images of 32 x 32."""
    transform: Any = file_augmentation(name, **changes).file_transform(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def flat(node: Any) -> list[str]:
        return (
            [leaf for part in node.transforms for leaf in flat(part)]
            if type(node) is Compose
            else [type(node).__name__]
        )

    return flat(transform)


CROPPED = ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip"]
FINISHED = ["MaybeToTensor", "Normalize"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet", [*CROPPED, "RandAugment", *FINISHED]),
        ("convnext", [*CROPPED, "RandAugment", *FINISHED, "RandomErasing"]),
        ("vmoe", [*CROPPED, "RandAugment", *FINISHED]),
        ("deit3", [*CROPPED, "AutoAugment", "ColorJitter", *FINISHED]),
        (
            "three_augment",
            ["ResizeKeepRatio", "RandomCropOrPad", CROPPED[1], "AutoAugment", "ColorJitter", *FINISHED],
        ),
        ("trivial", [*CROPPED, "TrivialAugmentWide", *FINISHED]),
    ],
)
def test_what_an_augmentation_does_in_its_order(name: str, expected: list[str]) -> None:
    assert steps(name) == expected


def test_jitter_and_erasing_come_beside_any_policy() -> None:
    changes = {"color_jitter": 0.4, "random_erasing": 0.25}
    assert steps("imagenet", **changes) == [
        *CROPPED,
        "RandAugment",
        "ColorJitter",
        *FINISHED,
        "RandomErasing",
    ]
    assert steps("imagenet", rand_augment=None) == [*CROPPED, *FINISHED]


def test_the_simple_crop_keeps_the_shape_of_things() -> None:
    # Columns of an image of 16 x 8 are 0, 1, ... 15: eight of them next to each other are cut out, unscaled.
    columns = np.arange(16, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    changes = {"rand_augment": None, "color_jitter": 0.0, "hflip": 0.0}
    augment = file_augmentation("three_augment", **changes)
    transform = augment.file_transform(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    starts = set()
    for number in range(100):
        with seeded(number):
            row = (transform(Image.fromarray(columns))[0, 3] * 255).round().int().tolist()
        assert row == list(range(row[0], row[0] + 8))
        starts.add(row[0])
    assert starts == set(range(9))


def test_the_centre_crop_by_hand() -> None:
    columns = np.arange(16, dtype=np.uint8)[None, :, None].repeat(16, 0).repeat(3, 2)
    # 8 / 0.5 = 16: nothing is resized, and the middle 8 are cut out.
    transform = CentreCrop(0.5, "bilinear").file_transform(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (transform(Image.fromarray(columns))[0, 0] * 255).round().int().tolist() == list(range(4, 12))


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("imagenet", {"num_repeats": 0}, "augment.num_repeats=0 must be a whole number of at least 1"),
        ("dihedral", {"random_erasing": 2.0}, "augment.random_erasing=2.0 is a probability: give 0 to 1"),
        (
            "dihedral",
            {"random_erasing_mode": "pixels"},
            "augment.random_erasing_mode=pixels is not one of: const, rand, pixel (did you mean pixel?)",
        ),
        ("deit3", {"color_jitter": -1.0}, "augment.color_jitter=-1.0 must be a number of at least 0"),
        (
            "trivial",
            {"interpolation": "cubist"},
            "augment.interpolation='cubist': timm knows it not; give for example bicubic",
        ),
    ],
)
def test_augmentations_that_are_refused(name: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        instantiate_plainly(name, changes)


def instantiate_plainly(name: str, changes: dict[str, Any]) -> None:
    settings: Any = OmegaConf.to_container(OmegaConf.load(CONF / "augment" / f"{name}.yaml"))
    get_class(settings.pop("_target_"))(**settings | changes)


@pytest.mark.parametrize(
    ("crop_pct", "interpolation", "text"),
    [
        (0.0, "bicubic", "data.crop_pct=0.0 is a share of the short side: give more than 0, at most 1"),
        (1.1, "bicubic", "data.crop_pct=1.1 is a share of the short side: give more than 0, at most 1"),
        (0.9, "cubist", "data.interpolation=cubist is unknown to timm: give bicubic or bilinear"),
    ],
)
def test_crops_of_evaluation_that_are_refused(crop_pct: float, interpolation: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        CentreCrop(crop_pct, interpolation)
