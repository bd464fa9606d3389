"""Each data set is read right, and each way of it being absent or broken gets its one line."""

import gzip
import hashlib
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets import CIFAR10
from torchvision.datasets.folder import IMG_EXTENSIONS

from routerbench.data import sources
from routerbench.data.image_files import ImageFiles, PathFiles
from routerbench.data.sources import Arrays
from routerbench.data.torchvision_sets import KNOWN, torchvision

FASHION_HELP = (
    "data=fashion_mnist needs {} that holds the four original files (train-images-idx3-ubyte.gz, ...)"
)
FOLDER_HELP = "data=folder needs {} that holds train/ and val/, each with one folder of images per class"
CIFAR_HELP = (
    "data=cifar10 needs {} that holds cifar10's files as torchvision lays them out "
    "(data.download=true fetches them)"
)


FOLDER: dict[str, Any] = {"train_split": "train", "test_split": None, "class_map": None}


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def arrays(dataset: sources.Dataset) -> Arrays:
    assert isinstance(dataset, Arrays)
    return dataset


def test_landcover32_has_the_counts_of_its_card() -> None:
    source = sources.landcover32()
    train, test = arrays(source.train), arrays(source.test)
    assert train.images.shape == (6866, 3, 32, 32)
    assert test.images.shape == (2095, 3, 32, 32)
    assert torch.bincount(test.labels).tolist() == [241, 76, 125, 253, 167, 254, 328, 166, 126, 359]
    both = torch.cat([train.labels, test.labels])
    assert torch.bincount(both).tolist() == [1200, 575, 320, 1200, 583, 816, 1200, 667, 1200, 1200]
    assert source.class_names[0] == "water"
    assert source.class_names[-1] == "barren"
    # Snow is white and water is blue: labels and channels are in their places.
    colour = torch.stack([train.images[train.labels == label].float().mean((0, 2, 3)) for label in (0, 8)])
    assert colour[1].min() > 200
    assert colour[0].argmax() == 2


def test_digits_has_every_fifth_of_each_class_for_testing() -> None:
    source = sources.digits()
    train, test = arrays(source.train), arrays(source.test)
    assert train.images.shape == (1442, 3, 32, 32)
    assert torch.bincount(test.labels).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert source.class_names == tuple("0123456789")
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    assert train.images.max() == 255


def write_idx(path: Path, array: np.ndarray) -> None:
    """The array as an idx file of unsigned bytes, gzipped if the name says so."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def fashion_root(tmp_path: Path) -> Path:
    """Three training images whose only bright pixel is (0, 1), (0, 2), (0, 3), and one test image."""
    images = np.zeros((3, 28, 28))
    for number in range(3):
        images[number, 0, number + 1] = 200
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([9, 0, 4]))
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images[:1])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([7]))
    return tmp_path


def test_fashion_mnist_pads_to_32_from_gzipped_and_plain_files(fashion_root: Path) -> None:
    source = sources.fashion_mnist(str(fashion_root))
    train, test = arrays(source.train), arrays(source.test)
    assert train.images.shape == (3, 3, 32, 32)
    # Two pixels of black on every side: (0, 2) of the second image is now (2, 4), in all three channels.
    assert train.images[1].nonzero().tolist() == [[0, 2, 4], [1, 2, 4], [2, 2, 4]]
    assert train.labels.tolist() == [9, 0, 4]
    assert test.labels.tolist() == [7]
    assert source.class_names[9] == "ankle boot"


def test_fashion_mnist_without_one_of_its_files(fashion_root: Path) -> None:
    (fashion_root / "t10k-labels-idx1-ubyte").unlink()
    text = (
        f"data.path={str(fashion_root)!r} has no file t10k-labels-idx1-ubyte.gz (or t10k-labels-idx1-ubyte)"
    )
    with pytest.raises(ValueError, match=exactly(text)):
        sources.fashion_mnist(str(fashion_root))


def test_fashion_mnist_with_a_file_cut_short(fashion_root: Path) -> None:
    path = fashion_root / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    text = f"{path} is not an idx file of 3 axes, or it is cut short: fetch it again"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.fashion_mnist(str(fashion_root))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=exactly(text)):
        sources.fashion_mnist(str(fashion_root))


def test_fashion_mnist_with_a_damaged_archive(fashion_root: Path) -> None:
    path = fashion_root / "train-labels-idx1-ubyte.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} cannot be unpacked .*: fetch it again$"):
        sources.fashion_mnist(str(fashion_root))


def test_fashion_mnist_with_fewer_labels_than_images(fashion_root: Path) -> None:
    write_idx(fashion_root / "train-labels-idx1-ubyte.gz", np.array([9, 0]))
    text = (
        f"data.path={str(fashion_root)!r}: the train files have 3 images, 2 labels, "
        "which must be equal: fetch them again"
    )
    with pytest.raises(ValueError, match=exactly(text)):
        sources.fashion_mnist(str(fashion_root))


@pytest.fixture
def cifar_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIFAR-10 of two training images and one test image, with the checksums that torchvision expects."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()

    def write(name: str, content: dict[str, object]) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    pixels = np.arange(3 * 3072).reshape(3, 3072) // 36  # 0 to 255, row by row, red before green before blue
    pixels = pixels.astype(np.uint8)
    monkeypatch.setattr(
        CIFAR10, "train_list", [write("data_batch_1", {"data": pixels[:2], "labels": [3, 0]})]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", {"data": pixels[2:], "labels": [9]})])
    name, checksum = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    return tmp_path


def test_cifar10_comes_from_torchvision_as_stored(cifar_root: Path) -> None:
    source = sources.cifar10(str(cifar_root), download=False)
    train, test = arrays(source.train), arrays(source.test)
    assert train.images.shape == (2, 3, 32, 32)
    assert train.images.flatten().tolist() == [value // 36 for value in range(2 * 3072)]
    assert (train.labels.tolist(), test.labels.tolist()) == ([3, 0], [9])
    assert source.class_names == tuple("abcdefghij")


def test_cifar10_that_is_not_there_or_damaged(cifar_root: Path) -> None:
    (cifar_root / CIFAR10.base_folder / "test_batch").write_bytes(b"damaged")
    text = f"data.path={str(cifar_root)!r} has no intact copy of cifar10: data.download=true fetches it"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.cifar10(str(cifar_root), download=False)


def test_folder_reads_class_folders(image_root: Path) -> None:
    source = sources.folder(str(image_root), **FOLDER)
    assert (len(source.train), len(source.test)) == (6, 5)
    assert source.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "settings", "contents"),
    [
        ("fashion_mnist", {}, FASHION_HELP),
        ("cifar10", {"download": False}, CIFAR_HELP),
        ("cifar10", {"download": True}, CIFAR_HELP),
        ("cifar100", {"download": False}, CIFAR_HELP.replace("cifar10", "cifar100")),
        ("folder", FOLDER, FOLDER_HELP),
    ],
)
def test_no_folder_given(name: str, settings: dict[str, Any], contents: str) -> None:
    with pytest.raises(ValueError, match=exactly("data.path=null: " + contents.format("the folder"))):
        getattr(sources, name)(None, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "contents"),
    [
        ("fashion_mnist", {}, FASHION_HELP),
        ("cifar10", {"download": False}, CIFAR_HELP),
        ("folder", FOLDER, FOLDER_HELP),
    ],
)
def test_the_folder_given_does_not_exist(
    name: str, settings: dict[str, Any], contents: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match=exactly(f"data.path={path!r} is not a folder: " + contents.format("one"))
    ):
        getattr(sources, name)(path, **settings)


def test_folder_whose_test_set_is_called_otherwise(image_root: Path) -> None:
    (image_root / "val").rename(image_root / "validation")
    assert len(sources.folder(str(image_root), **FOLDER).test) == 5
    (image_root / "train").rename(image_root / "all")
    source = sources.folder(str(image_root), "all[:50%]", "validation", None)
    assert (len(source.train), len(source.test)) == (6, 5)
    (image_root / "all").rename(image_root / "train")
    (image_root / "val").mkdir()
    text = f"data.test_split=null: {str(image_root)!r} has both val/ and validation/: give one of them"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.folder(str(image_root), **FOLDER)


def test_folder_with_a_class_map(image_root: Path) -> None:
    (image_root / "train" / "eel").mkdir()
    (image_root / "classes.txt").write_text("dog\ncat\n")  # found in data.path too
    source = sources.folder(str(image_root), "train", None, "classes.txt")
    assert source.class_names == ("dog", "cat")
    train = source.train
    assert isinstance(train, PathFiles)
    assert [Path(train.name(index)).parent.name for index in range(6)] == ["cat"] * 3 + ["dog"] * 3
    assert train.labels.tolist() == [1, 1, 1, 0, 0, 0]
    (image_root / "classes.txt").write_text("dog\ncat\neel\n")
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(image_root / 'train' / 'eel'))} is an empty class"
    ):
        sources.folder(str(image_root), "train", None, "classes.txt")


@pytest.mark.parametrize("name", ["classes.csv", "nowhere.txt"])
def test_a_class_map_that_cannot_be_read(image_root: Path, name: str) -> None:
    (image_root / "classes.csv").write_text("dog")
    text = f"data.class_map={name} cannot be read: give a .txt or .pkl file of timm's"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.folder(str(image_root), "train", None, name)


def test_a_class_map_with_labels_that_are_no_numbering(image_root: Path) -> None:
    path = image_root / "classes.pkl"
    path.write_bytes(pickle.dumps({"cat": 0, "dog": 2}))
    text = f"data.class_map={path} has labels that do not number its 2 classes: give each its own, from 0 on"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.folder(str(image_root), "train", None, str(path))


def test_torchvision_holds_small_sets_in_memory(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        pixels = np.zeros((count, 28, 28))
        pixels[:, 1, 2] = 200
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count))
    source = torchvision(str(tmp_path), "mnist", download=False)
    train = arrays(source.train)
    assert train.images.shape == (3, 3, 28, 28)
    assert train.images[1].nonzero().tolist() == [[0, 1, 2], [1, 1, 2], [2, 1, 2]]
    assert (train.labels.tolist(), len(source.test)) == ([0, 1, 2], 2)
    assert source.class_names[2] == "2 - two"


def test_torchvision_with_images_last(cifar_root: Path) -> None:
    source = torchvision(str(cifar_root), "cifar10", download=False)
    assert torch.equal(
        arrays(source.train).images, arrays(sources.cifar10(str(cifar_root), download=False).train).images
    )
    assert source.class_names == tuple("abcdefghij")


def test_torchvision_decodes_the_files_of_others(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("valid", 1), ("test", 1)):
        for country in ("AD", "AE"):
            folder = tmp_path / "country211" / part / country
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (6, 4), 40 * number).save(folder / f"{number}.jpg")
    source = torchvision(str(tmp_path), "country211", download=False)
    assert source.class_names == ("AD", "AE")
    train = source.train
    assert isinstance(train, ImageFiles)
    assert (len(train), len(source.test)) == (4, 2)
    image, label = train.read(3)
    assert (image.mode, image.size, label, train.label(3)) == ("RGB", (6, 4), 1, 1)
    (tmp_path / "country211" / "train" / "AD" / "0.jpg").write_text("no image")
    text = "image 0 of Country211 cannot be read as an image (UnidentifiedImageError): replace or remove it"
    with pytest.raises(ValueError, match=exactly(text)):
        train.read(0)


def test_torchvision_without_a_set_or_its_files(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^data\.dataset=foodd is not one of: cifar10, .*did you mean food101\?"
    ):
        torchvision(str(tmp_path), "foodd", download=False)
    with pytest.raises(ValueError, match=r"^data\.dataset=None is not one of: cifar10, "):
        torchvision(str(tmp_path), None, download=False)
    with pytest.raises(ValueError, match=rf"^data\.path={str(tmp_path)!r} has no intact copy of food101: "):
        torchvision(str(tmp_path), "food101", download=False)


@pytest.mark.parametrize("name", KNOWN)
def test_every_known_set_is_one_of_torchvision_and_takes_its_arguments(name: str) -> None:
    known = KNOWN[name]
    signatures = [
        inspect.signature(of_class.__init__).parameters
        for of_class in getattr(datasets, known.name).__mro__
        if "__init__" in vars(of_class)
    ]
    accepted = {argument for signature in signatures for argument in signature}
    assert {*known.train, *known.test} <= accepted
    assert known.train != known.test


def test_folder_without_val(image_root: Path) -> None:
    (image_root / "val").rename(image_root / "test")
    text = f"data.path={str(image_root)!r} has no folder val/: give one that holds train/ and val/"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.folder(str(image_root), **FOLDER)


def test_folder_without_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    text = f"{tmp_path / 'train'} has no class folders: it needs one folder of images per class"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.folder(str(tmp_path), **FOLDER)


def test_folder_with_an_empty_class(image_root: Path) -> None:
    empty = image_root / "train" / "bird"
    empty.mkdir()
    (empty / "notes.txt").write_text("not an image")
    text = f"{empty} is an empty class: remove it or put images there ({' '.join(IMG_EXTENSIONS)})"
    with pytest.raises(ValueError, match=exactly(text)):
        sources.folder(str(image_root), **FOLDER)


def test_folder_with_other_classes_in_val(image_root: Path) -> None:
    (image_root / "val" / "dog").rename(image_root / "val" / "eel")
    text = (
        f"data.path={str(image_root)!r}: train/ and val/ need the same class folders, "
        "but only one of them has dog, eel"
    )
    with pytest.raises(ValueError, match=exactly(text)):
        sources.folder(str(image_root), **FOLDER)
