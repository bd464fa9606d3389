"""Further image sets, most for a model of ImageNet-1k's classes, and how their labels are scored in these."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files as resource_files
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from timm.data.imagenet_info import ImageNetInfo
from timm.data.real_labels import RealLabelsImagenet
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from routerbench.checks import check_one_of
from routerbench.data.folders import evaluated_folder
from routerbench.data.image_files import ImageFiles, PathFiles, class_folders, open_folder
from routerbench.data.loaders import Loader

SUBSETS = ("imagenet_a", "imagenet_r")  # of which timm has the classes


@dataclass(frozen=True)
class ExtraSet:
    """A set to evaluate a model on."""

    loader: Loader
    classes: Int64[Tensor, "K"]
    """Those of the model's classes that compete for the prediction."""
    right: Bool[Tensor, "L K"]
    """For each label that the loader gives, which of `classes` are right."""

    def accuracies(self, logits: Float[Tensor, "N classes"], labels: Int64[Tensor, "N"]) -> dict[str, float]:
        """Top-1 and top-5 accuracy in [0, 1], from logits over all classes of the model."""
        return accuracies(logits.cpu()[:, self.classes], self.right[labels.cpu()])


def accuracies(logits: Float[Tensor, "N K"], right: Bool[Tensor, "N K"]) -> dict[str, float]:
    """The share of images for which a right class has the highest score, and one of the five highest.

    Of equal scores the first is the higher; one that is no finite number is never right.
    """
    finite = logits.isfinite()
    scores = logits.float().masked_fill(~finite, -torch.inf)
    ranking = scores.argsort(stable=True, dim=1, descending=True)[:, :5]
    hits = (right & finite).gather(1, ranking)
    return {
        "top1": float(hits[:, 0].double().mean()),
        "top5": float(hits.any(1).double().mean()),
    }


@dataclass(frozen=True)
class ImageSets(ABC):
    """What a file of `conf/eval` describes: a folder with one set of images or several."""

    name: str
    path: str | None

    @abstractmethod
    def parts(self) -> "dict[str, ExtraImages]":
        """Its sets by what is added to the name; one alone has nothing added."""


@dataclass(frozen=True)
class ExtraImages(ImageSets, ABC):
    """One set of images in a folder, and what their labels mean."""

    def parts(self) -> "dict[str, ExtraImages]":
        """Itself."""
        return {"": self}

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Raise ValueError for a model of other classes than ImageNet-1k's."""
        if class_names != imagenet_classes():
            raise ValueError(
                f"eval.{self.name} is for models of ImageNet-1k's 1000 classes, named by their WordNet ids, "
                f"and this data set has {len(class_names)}, from {class_names[0]} on: leave it out, or name "
                "them so by data.class_map"
            )

    @abstractmethod
    def read(
        self, folder: Path, class_names: tuple[str, ...]
    ) -> tuple[ImageFiles, Sequence[int], Bool[Tensor, "L K"]]:
        """The images, the classes that compete, and which of these are right for each label of the images."""

    def for_model(
        self, class_names: tuple[str, ...], make_loader: Callable[[ImageFiles], Loader]
    ) -> ExtraSet:
        """The set for a model of these classes; raises ValueError where it is not for them."""
        self.check_classes(class_names)
        folder = evaluated_folder(self.name, self.path)
        try:
            files, classes, right = self.read(folder, class_names)
        except ValueError as error:
            raise ValueError(f"eval.{self.name}: {error}") from error
        return ExtraSet(make_loader(files), torch.tensor(classes), right)


@dataclass(frozen=True)
class NumberedFolders(ExtraImages):
    """A folder for each of the 1000 classes, by its number: ImageNet-V2.

    Source: B. Recht et al., arXiv:1902.10811.
    """

    def read(
        self, folder: Path, class_names: tuple[str, ...]
    ) -> tuple[ImageFiles, Sequence[int], Bool[Tensor, "L K"]]:
        """The images; all classes compete, and the folder's number is the right one."""
        labels = {str(label): label for label in range(1000)}
        return _of_folders(folder, labels), range(1000), torch.eye(1000, dtype=torch.bool)


@dataclass(frozen=True)
class NamedFolders(ExtraImages):
    """A folder for each class, by its WordNet id: of all classes (-Sketch) or of a subset (-A, -R).

    Of a subset, only its classes compete, as in the authors' code.
    Source: D. Hendrycks et al., arXiv:1907.07174 (A), arXiv:2006.16241 (R); H. Wang et al., arXiv:1905.13549.
    """

    subset: str | None

    def read(
        self, folder: Path, class_names: tuple[str, ...]
    ) -> tuple[ImageFiles, Sequence[int], Bool[Tensor, "L K"]]:
        """The images; the class of the folder is the right one."""
        names = imagenet_classes()
        classes = range(1000) if self.subset is None else _subset(self.subset)
        labels = {names[index]: label for label, index in enumerate(classes)}
        return _of_folders(folder, labels), classes, torch.eye(len(classes), dtype=torch.bool)


@dataclass(frozen=True)
class ReassessedLabels(ExtraImages):
    """The validation images of ImageNet, each with any number of right classes; those with none are left out.

    `labels` is the authors' real.json (null: timm's copy).
    Source: L. Beyer et al., Are we done with ImageNet?, arXiv:2006.07159.
    """

    labels: str | None

    def read(
        self, folder: Path, class_names: tuple[str, ...]
    ) -> tuple[ImageFiles, Sequence[int], Bool[Tensor, "L K"]]:
        """The images in the order of their numbers, each labelled with its place."""
        paths = {path.name: path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS}
        names = sorted(paths)
        try:
            by_name = RealLabelsImagenet(names, self.labels).real_labels
        except AssertionError as error:
            raise ValueError(
                f"{folder} has {len(names)} images, and not one for each of the labels"
            ) from error
        except (OSError, ValueError) as error:
            raise ValueError(f"labels={self.labels} is no real.json ({error})") from error
        unknown = next((name for name in names if name not in by_name), None)
        if unknown is not None:
            raise ValueError(f"{paths[unknown]} is not named as ILSVRC2012_val_00000001.JPEG is")
        labelled = [name for name in names if by_name[name]]
        right = torch.zeros(len(labelled), 1000, dtype=torch.bool)
        for image, name in enumerate(labelled):
            right[image, by_name[name]] = True
        samples = [(str(paths[name]), image) for image, name in enumerate(labelled)]
        return PathFiles.of(samples), range(1000), right


@dataclass(frozen=True)
class OwnFolders(ExtraImages):
    """A folder for each class of the run, or for some of them, by the names that its data set gives them."""

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Any will do."""

    def read(
        self, folder: Path, class_names: tuple[str, ...]
    ) -> tuple[ImageFiles, Sequence[int], Bool[Tensor, "L K"]]:
        """The images; all classes compete, and that of the folder is the right one."""
        known = {name: label for label, name in enumerate(class_names)}
        found = class_folders(folder)
        other = next((name for name in found if name not in known), None)
        if other is not None:
            raise ValueError(
                f"{folder / other} is of no class of the run, which are {', '.join(class_names[:5])}"
                + (f" and {len(class_names) - 5} more" if len(class_names) > 5 else "")
                + ": rename or remove it"
            )
        files = open_folder(folder, {name: known[name] for name in found})
        return files, range(len(known)), torch.eye(len(known), dtype=torch.bool)


def imagenet_classes() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes, in their order."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())


def _subset(name: str) -> list[int]:
    """The numbers of the classes of a set that has some of them alone."""
    check_one_of("subset", name, SUBSETS)
    lines = (resource_files("timm.data") / "_info" / f"{name}_indices.txt").read_text().split()
    return [int(line) for line in lines]


def _of_folders(folder: Path, labels: dict[str, int]) -> PathFiles:
    """The images in the class folders; raises ValueError where one is missing, or is of another class."""
    differing = sorted(set(labels) ^ set(class_folders(folder)))
    if differing:
        raise ValueError(
            f"{folder} needs a folder for each of {len(labels)} classes and no other: wrong are "
            + ", ".join(differing[:5])
            + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
        )
    return open_folder(folder, labels)
