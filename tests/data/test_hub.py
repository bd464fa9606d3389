"""A Hugging Face data set on disk, read by timm's reader."""

import builtins
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from routerbench.data import loaders
from routerbench.data.hub import HubFiles, hfds
from routerbench.data.loaders import Decoding
from routerbench.data.orders import ALONE
from routerbench.data.pixels import CentreCrop
from routerbench.data.sources import Source

datasets = pytest.importorskip("datasets")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images to train on and five to validate, each of one grey, classes cat and dog in turn."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "age": datasets.Value("int64"),
        }
    )
    folder = tmp_path / "set"
    folder.mkdir()
    datasets.disable_progress_bars()
    for split, count in (("train", 6), ("validation", 5)):
        rows: dict[str, Any] = {
            "image": [Image.fromarray(np.full((3, 4, 3), 40 * number, np.uint8)) for number in range(count)],
            "label": [number % 2 for number in range(count)],
            "age": [number - 1 for number in range(count)],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def opened(root: Path, **changes: str | None) -> Source:
    settings: dict[str, Any] = {
        "train_split": "train[:50%]",
        "test_split": "validation",
        "image_key": "image",
        "label_key": "label",
        "class_map": None,
        **changes,
    }
    return hfds(str(root), **settings)


def test_images_and_labels_come_by_position(root: Path) -> None:
    source = opened(root)
    assert source.class_names == ("cat", "dog")
    train, test = source.train, source.test
    assert isinstance(train, HubFiles)
    assert isinstance(test, HubFiles)
    assert (len(train), len(test)) == (6, 5)
    image, label = train.read(3)
    assert (image.size, image.getpixel((0, 0)), label) == ((4, 3), (120, 120, 120), 1)
    assert (train.size(3), train.label(3)) == ((4, 3), 1)
    assert test.labels.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_read_the_same(root: Path) -> None:
    batches = []
    for workers in (0, 2):
        loader = loaders.test_loader(
            opened(root).test,
            batch_size=2,
            image_size=4,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            decoding=Decoding(workers, 0.0, False, CentreCrop(1.0, "bicubic")),
            share=ALONE,
        )
        batches.append(list(loader.epoch(0)))
        loader.close()
    for (images, labels), (others, their_labels) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, their_labels)
    assert [labels.tolist() for _, labels in batches[0]] == [[0, 1], [0, 1], [0]]


def test_classes_may_be_named_by_a_file(root: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("n01\nn02\n")
    assert opened(root, class_map=str(tmp_path / "names.txt")).class_names == ("n01", "n02")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"test_split": "test"},
            'data.path={root!r} has no split test to read: Unknown split "test". '
            "Should be one of ['train', 'validation'].",
        ),
        ({"image_key": "img"}, "data.image_key=img is no column of {root}: it has image, label, age"),
        ({"label_key": "class"}, "data.label_key=class is no column of {root}: it has image, label, age"),
        ({"label_key": "age"}, "data.path={root!r} has images without a label in train: take another split"),
    ],
)
def test_what_is_not_there(root: Path, changes: dict[str, str], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(expected.format(root=str(root)))}$"):
        opened(root, **changes)


def test_no_path() -> None:
    text = "data.path=null: data=hfds needs the name of a set on the hub, or its folder"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        hfds(None, "train", "validation", "image", "label", None)


def test_without_the_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_ = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.endswith("reader_hfds"):
            raise ImportError("No module named 'datasets'")
        return import_(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    text = "data=hfds needs the package datasets: pip install 'routerbench[hfds]'"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        opened(root)
