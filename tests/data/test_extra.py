"""Further image sets: which classes compete, which labels are right, and what is refused."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from routerbench.config import conf_dir
from routerbench.data import loaders
from routerbench.data.extra import (
    ExtraImages,
    ExtraSet,
    ImageSets,
    NamedFolders,
    NumberedFolders,
    ReassessedLabels,
    accuracies,
    imagenet_classes,
)
from routerbench.data.loaders import Decoding
from routerbench.data.orders import ALONE
from routerbench.data.pixels import CentreCrop

make_loader = partial(
    loaders.test_loader,
    batch_size=64,
    image_size=8,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    decoding=Decoding(0, 0.0, False, CentreCrop(1.0, "bicubic")),
    share=ALONE,
)


def for_model(images: ExtraImages) -> ExtraSet:
    return images.for_model(imagenet_classes(), make_loader)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def labels_of(extra: ExtraSet) -> list[int]:
    return torch.cat([labels for _, labels in extra.loader.epoch(0)]).tolist()


def test_accuracies_by_hand() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]]).repeat(4, 1)
    right = torch.zeros(4, 6, dtype=torch.bool)
    right[0, 0] = True  # the highest
    right[1, [3, 5]] = True  # the fourth and the last: among the five, not first
    right[2, [0, 5]] = True  # any of them will do
    right[3, 5] = True  # the last
    assert accuracies(logits, right) == {"top1": 0.5, "top5": 0.75}


def test_of_equal_scores_the_first_wins_and_no_number_loses() -> None:
    right = torch.tensor([[False, True]])
    assert accuracies(torch.tensor([[1.0, 1.0]]), right)["top1"] == 0
    assert accuracies(torch.tensor([[1.0, 1.0]]), ~right)["top1"] == 1
    for bad in (torch.nan, torch.inf):
        assert accuracies(torch.tensor([[0.0, bad]]), right) == {"top1": 0, "top5": 0}
        assert accuracies(torch.tensor([[0.0, bad]]), ~right)["top1"] == 1


def test_folders_by_number_are_not_in_the_order_of_their_names(tmp_path: Path) -> None:
    for label in range(1000):
        save(tmp_path / str(label) / "0.png")
    extra = for_model(NumberedFolders("imagenet_v2", str(tmp_path)))
    assert sorted(labels_of(extra)) == list(range(1000))
    image_of = {int(Path(extra.loader.files.name(i)).parent.name): i for i in range(1000)}  # type: ignore
    assert all(extra.loader.files.label(image) == number for number, image in image_of.items())  # type: ignore
    logits = torch.eye(1000)
    assert extra.accuracies(logits, torch.arange(1000)) == {"top1": 1, "top5": 1}


@pytest.mark.parametrize(
    ("name", "first"),
    # The stingray is class 6 and the first of -A; the goldfish is class 1 and the first of -R.
    [("imagenet_a", ("n01498041", 6)), ("imagenet_r", ("n01443537", 1))],
)
def test_of_a_subset_its_classes_alone_compete(name: str, first: tuple[str, int], tmp_path: Path) -> None:
    indices = [int(index) for index in _subset_of_timm(name)]
    names = imagenet_classes()
    for index in indices:
        save(tmp_path / names[index] / "0.png")
    extra = for_model(NamedFolders(name, str(tmp_path), name))
    assert labels_of(extra) == list(range(200))
    assert (names[indices[0]], indices[0]) == first
    assert extra.classes.tolist() == indices
    # Class 0 is in neither subset: however high it scores, the prediction is another.
    assert 0 not in indices
    logits = torch.zeros(1, 1000)
    logits[0, 0], logits[0, first[1]] = 9.0, 1.0
    assert extra.accuracies(logits, torch.tensor([0])) == {"top1": 1, "top5": 1}
    assert extra.accuracies(logits, torch.tensor([7])) == {"top1": 0, "top5": 0}


def _subset_of_timm(name: str) -> list[str]:
    import timm.data

    assert timm.data.__file__
    return (Path(timm.data.__file__).parent / "_info" / f"{name}_indices.txt").read_text().split()


def test_sketch_has_all_classes_by_their_names(tmp_path: Path) -> None:
    for wnid in imagenet_classes():
        save(tmp_path / wnid / "0.png")
    extra = for_model(NamedFolders("imagenet_sketch", str(tmp_path), None))
    assert labels_of(extra) == list(range(1000))
    (tmp_path / imagenet_classes()[3]).rename(tmp_path / "other")
    text = (
        f"eval.imagenet_sketch: {tmp_path} needs a folder for each of 1000 classes and no other: wrong are "
        f"{imagenet_classes()[3]}, other"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        for_model(NamedFolders("imagenet_sketch", str(tmp_path), None))


@pytest.fixture
def real(tmp_path: Path) -> ReassessedLabels:
    """Four images in two folders, not in the order of their numbers; the third has no label, the last two."""
    for number, folder in ((1, "n02"), (2, "n01"), (3, "n01"), (4, "n02")):
        save(tmp_path / "val" / folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    (tmp_path / "real.json").write_text(json.dumps([[7], [8], [], [1, 999]]))
    return ReassessedLabels("imagenet_real", str(tmp_path / "val"), str(tmp_path / "real.json"))


def test_an_image_is_right_if_any_of_its_labels_is_predicted(real: ReassessedLabels) -> None:
    extra = for_model(real)
    assert labels_of(extra) == [0, 1, 2]  # the place of an image, without that which has no label
    assert [row.nonzero().flatten().tolist() for row in extra.right] == [[7], [8], [1, 999]]
    logits = torch.zeros(3, 1000)
    logits[0, 7] = logits[1, 7] = logits[2, 999] = 1.0
    result = extra.accuracies(logits, torch.tensor([0, 1, 2]))
    assert result["top1"] == pytest.approx(2 / 3)


def test_labels_that_are_not_of_these_images(real: ReassessedLabels) -> None:
    assert real.path is not None
    assert real.labels is not None
    val = Path(real.path)
    Path(real.labels).write_text("[[1]]")
    text = f"eval.imagenet_real: {val} has 4 images, and not one for each of the labels"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        for_model(real)
    Path(real.labels).write_text("[[1], [2], [3], [4]]")
    (val / "n01" / "ILSVRC2012_val_00000002.JPEG").rename(val / "n01" / "0.JPEG")
    text = f"eval.imagenet_real: {val / 'n01' / '0.JPEG'} is not named as ILSVRC2012_val_00000001.JPEG is"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        for_model(real)
    Path(real.labels).write_text("no json")
    with pytest.raises(
        ValueError, match=rf"^eval\.imagenet_real: labels={re.escape(real.labels)} is no real"
    ):
        for_model(real)


def test_a_model_of_other_classes(real: ReassessedLabels) -> None:
    text = (
        "eval.imagenet_real is for models of ImageNet-1k's 1000 classes, named by their WordNet ids, "
        "and this data set has 2, from cat on: leave it out, or name them so by data.class_map"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        real.for_model(("cat", "dog"), make_loader)


@pytest.mark.parametrize(("path", "said"), [(None, "null"), ("/nowhere", "/nowhere")])
def test_no_folder(path: str | None, said: str) -> None:
    text = f"eval.imagenet_v2.path={said} is no folder: give that of its images"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        for_model(NumberedFolders("imagenet_v2", path))


@pytest.mark.parametrize(
    "path", sorted((conf_dir() / "eval").glob("imagenet_*.yaml")), ids=lambda path: path.stem
)
def test_every_file_says_where_it_stands_and_whence_it_is(path: Path) -> None:
    package, source = path.read_text().splitlines()[:2]
    assert package == f"# @package eval.{path.stem}"
    assert "arXiv:" in source
    images = instantiate(OmegaConf.load(path))
    assert isinstance(images, ImageSets)
    assert (images.name, images.path) == (path.stem, None)
