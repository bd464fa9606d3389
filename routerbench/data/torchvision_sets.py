"""torchvision's classification sets that have a training and a test set of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from routerbench.checks import check_one_of
from routerbench.data.folders import existing_folder, named_folder
from routerbench.data.image_files import DAMAGED, ImageFiles, unreadable
from routerbench.data.sources import Arrays, Dataset, Source, three_channels


@dataclass(frozen=True)
class KnownSet:
    """A class of torchvision and the arguments that choose its training and its test set."""

    name: str
    train: Mapping[str, Any]
    test: Mapping[str, Any]
    num_classes: int | None = None
    """Of a set that does not name its classes."""


FLAG = ({"train": True}, {"train": False})
SPLIT = ({"split": "train"}, {"split": "test"})
HELD_OUT = ({"split": "trainval"}, {"split": "test"})
VAL = ({"split": "train"}, {"split": "val"})
KNOWN = {
    "cifar10": KnownSet("CIFAR10", *FLAG),
    "cifar100": KnownSet("CIFAR100", *FLAG),
    "country211": KnownSet("Country211", *SPLIT),
    "dtd": KnownSet("DTD", *SPLIT),
    "emnist_balanced": KnownSet(
        "EMNIST", {"split": "balanced", "train": True}, {"split": "balanced", "train": False}
    ),
    "fashion_mnist": KnownSet("FashionMNIST", *FLAG),
    "fgvc_aircraft": KnownSet("FGVCAircraft", *HELD_OUT),
    "flowers102": KnownSet("Flowers102", *SPLIT),
    "food101": KnownSet("Food101", *SPLIT),
    "gtsrb": KnownSet("GTSRB", *SPLIT, num_classes=43),
    "imagenette": KnownSet("Imagenette", *VAL),
    "inaturalist": KnownSet(
        "INaturalist", {"version": "2021_train"}, {"version": "2021_valid"}, num_classes=10_000
    ),
    "kmnist": KnownSet("KMNIST", *FLAG),
    "mnist": KnownSet("MNIST", *FLAG),
    "oxford_iiit_pet": KnownSet("OxfordIIITPet", *HELD_OUT),
    "pcam": KnownSet("PCAM", *SPLIT, num_classes=2),
    "places365": KnownSet("Places365", {"split": "train-standard"}, {"split": "val"}),
    "qmnist": KnownSet("QMNIST", {"what": "train"}, {"what": "test"}),
    "rendered_sst2": KnownSet("RenderedSST2", *SPLIT),
    "stanford_cars": KnownSet("StanfordCars", *SPLIT),
    "stl10": KnownSet("STL10", *SPLIT),
    "svhn": KnownSet("SVHN", *SPLIT, num_classes=10),
    "usps": KnownSet("USPS", *FLAG, num_classes=10),
}


@dataclass(frozen=True)
class TorchvisionImages(ImageFiles):
    """The images of a set of torchvision, whose size is unknown before: they are not kept decoded."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The RGB image and its label; raises ValueError naming its place where it cannot be decoded."""
        try:
            image, label = self.dataset[index]
            return image.convert("RGB"), int(label)
        except DAMAGED as error:
            raise unreadable(f"image {index} of {type(self.dataset).__name__}", error) from error

    def label(self, index: int) -> int:
        """The label alone."""
        return self.read(index)[1]

    def size(self, index: int) -> tuple[int, int]:
        """Unknown."""
        return 0, 0


def torchvision(path: str | None, dataset: str | None, download: bool) -> Source:
    """One of `KNOWN`, fetched if `download`; raises ValueError for another, or where it is not found."""
    check_one_of("data.dataset", dataset, tuple(KNOWN))
    assert dataset is not None
    root = (named_folder if download else existing_folder)(path, "torchvision", dataset)
    known = KNOWN[dataset]
    fetch = {"download": True} if download else {}  # not every set takes it
    try:
        train, test = (
            getattr(datasets, known.name)(str(root), **part, **fetch) for part in (known.train, known.test)
        )
    except (RuntimeError, OSError, ImportError) as error:
        if download:  # the net, not the folder: torchvision's own words say what went wrong
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"data.path={path!r} has no intact copy of {dataset}: {reason}") from error
    return Source(opened(train), opened(test), class_names(known, train))


def class_names(known: KnownSet, dataset: Any) -> tuple[str, ...]:
    """The names of the classes, their numbers where the set has none."""
    if known.num_classes is not None:
        return tuple(str(label) for label in range(known.num_classes))
    return tuple(dataset.classes)


def opened(dataset: Any) -> Dataset:
    """The images of a part: in memory where torchvision has them there, small and of one size."""
    images, labels = getattr(dataset, "data", None), getattr(dataset, "targets", None)
    labels = getattr(dataset, "labels", None) if labels is None else labels
    if not isinstance(images, np.ndarray | torch.Tensor):
        return TorchvisionImages(dataset)
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    if images.ndim == 3:
        return Arrays(three_channels(images[:, None]), of_class(labels))
    channels_last = images.shape[1] != 3
    return Arrays((images.permute(0, 3, 1, 2) if channels_last else images).contiguous(), of_class(labels))


def of_class(labels: torch.Tensor) -> torch.Tensor:
    """The class alone, of labels that say more (QMNIST's: who wrote it)."""
    return (labels[:, 0] if labels.ndim == 2 else labels).long()
