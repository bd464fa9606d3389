"""The data sets: each function reads one into a training set, a test set and the names of the classes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from routerbench.data.class_maps import in_order, read_class_map
from routerbench.data.folders import existing_folder, named_folder, split_folders
from routerbench.data.idx import read_images, read_labels
from routerbench.data.image_files import ImageFiles, Selected, class_folders, open_folder
from routerbench.data.splits import Part

EMBEDDED = Path(__file__).parent / "embedded"
LANDCOVER32_CLASSES = (
    "water",
    "evergreen broadleaf",
    "mixed forest",
    "open shrubland",
    "woody savanna",
    "savanna",
    "grassland",
    "cropland",
    "snow/ice",
    "barren",
)
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@dataclass(frozen=True)
class Arrays:
    """A data set held in memory: images as they were decoded, and the label of each."""

    images: UInt8[Tensor, "N 3 H W"]
    labels: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.labels)


Dataset = Arrays | ImageFiles


def select(dataset: Dataset, indices: Int64[Tensor, "n"]) -> Dataset:
    """The images at these places, in this order."""
    if isinstance(dataset, Arrays):
        return Arrays(dataset.images[indices], dataset.labels[indices])
    return Selected(dataset, indices.numpy())


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """The label of every image; a data set that does not keep them apart decodes each image for its label."""
    if isinstance(dataset, Arrays):
        return dataset.labels.numpy()
    return np.array([dataset.label(index) for index in range(len(dataset))])


@dataclass(frozen=True)
class Source:
    """The two splits of a data set; label `k` of either is `class_names[k]`."""

    train: Dataset
    test: Dataset
    class_names: tuple[str, ...]


def landcover32() -> Source:
    """8,961 satellite images of 10 kinds of land cover, 32 x 32, split by place (docs/landcover32.md)."""
    with np.load(EMBEDDED / "landcover32.npz") as file:
        images, labels, test = (torch.from_numpy(file[name]) for name in ("X", "y", "te"))
    return split(images.permute(0, 3, 1, 2), labels, test, LANDCOVER32_CLASSES)


def digits() -> Source:
    """1,797 handwritten digits of 8 x 8 pixels, scaled to 32 x 32, every fifth of a class for testing.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998; scikit-learn's copy.
    """
    with np.load(EMBEDDED / "digits.npz") as file:
        images, labels, test = (torch.from_numpy(file[name]) for name in ("X", "y", "te"))
    grey = images[:, None].float() * (255 / 16)  # stored as 0 to 16
    grey = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    return split(three_channels(grey.round().to(torch.uint8)), labels, test, tuple("0123456789"))


def fashion_mnist(path: str | None) -> Source:
    """Fashion-MNIST from its four original files (gzipped or not), 28 x 28 padded with black to 32 x 32.

    Raises ValueError where the folder or one of the files is missing or is not in the idx format.
    Source: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747.
    """
    folder = existing_folder(path, "fashion_mnist")
    return Source(fashion_split(folder, "train"), fashion_split(folder, "t10k"), FASHION_MNIST_CLASSES)


def cifar10(path: str | None, download: bool) -> Source:
    """CIFAR-10 by torchvision, fetched if `download`; raises ValueError where it is not found."""
    return cifar(CIFAR10, "cifar10", path, download)


def cifar100(path: str | None, download: bool) -> Source:
    """CIFAR-100 by torchvision, fetched if `download`; raises ValueError where it is not found."""
    return cifar(CIFAR100, "cifar100", path, download)


def folder(path: str | None, train_split: str, test_split: str | None, class_map: str | None) -> Source:
    """Image files below train/ and val/, a folder for each class: ImageNet's layout; val/ is the test set.

    It may be called validation/, or whatever `test_split` says. A class map (timm's: a .txt with the name of
    a class folder in each line) says which class folders are taken, as what labels; else it is all of them.
    Raises ValueError where a folder is missing, a class is empty or val/ has other classes than train/.
    """
    root = existing_folder(path, "folder")
    train, test = split_folders(root, Part.parse("data.train_split", train_split).name, test_split)
    labels = class_folders(train) if class_map is None else read_class_map(class_map, root)
    training = open_folder(train, labels)
    differing = sorted(set(labels) ^ set(class_folders(test)))
    if differing and class_map is None:
        raise ValueError(
            f"data.path={path!r}: {train.name}/ and {test.name}/ need the same class folders, "
            "but only one of them has "
            + ", ".join(differing[:5])
            + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
        )
    return Source(training, open_folder(test, labels), in_order(labels))


def fashion_split(folder: Path, part: str) -> Arrays:
    """One split, from its two files; raises ValueError where they do not belong together."""
    images = read_images(folder, f"{part}-images-idx3-ubyte")
    labels = read_labels(folder, f"{part}-labels-idx1-ubyte")
    if len(images) != len(labels):
        raise ValueError(
            f"data.path={str(folder)!r}: the {part} files have {len(images)} images, {len(labels)} labels, "
            "which must be equal: fetch them again"
        )
    return Arrays(three_channels(F.pad(images, (2, 2, 2, 2))), labels)


def cifar(dataset: Callable[..., CIFAR10], name: str, path: str | None, download: bool) -> Source:
    """Both parts of a CIFAR in memory, after torchvision has checked the files."""
    root = (named_folder if download else existing_folder)(path, name)
    try:
        parts = [dataset(root, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        if download:  # the net, not the folder: torchvision's own words say what went wrong
            raise
        raise ValueError(
            f"data.path={path!r} has no intact copy of {name}: data.download=true fetches it"
        ) from error
    train, test = (
        Arrays(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in parts
    )
    return Source(train, test, tuple(parts[0].classes))


def split(
    images: UInt8[Tensor, "N 3 H W"],
    labels: Int64[Tensor, "N"],
    test: Tensor,
    class_names: tuple[str, ...],
) -> Source:
    """The images where `test` is false and those where it is true."""
    return Source(
        Arrays(images[~test].contiguous(), labels[~test]),
        Arrays(images[test].contiguous(), labels[test]),
        class_names,
    )


def three_channels(grey: UInt8[Tensor, "N 1 H W"]) -> UInt8[Tensor, "N 3 H W"]:
    """Grey images as colour images with three equal channels."""
    return grey.repeat(1, 3, 1, 1)
