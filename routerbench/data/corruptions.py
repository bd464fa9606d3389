"""ImageNet-C: images corrupted in many ways, each in several severities, and the means over them."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from routerbench.data.extra import ExtraImages, ImageSets, NamedFolders
from routerbench.data.folders import evaluated_folder
from routerbench.data.image_files import class_folders

# Top-1 errors of AlexNet, means over severities 1 to 5, by which mCE is normalised. Source: the code of
# D. Hendrycks and T. Dietterich (arXiv:1903.12261), github.com/hendrycks/robustness.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
SEVERITIES = (1, 2, 3, 4, 5)
TOP1 = re.compile(r"(?P<set>[^/]+)/(?P<corruption>[^/]+)/(?P<severity>[1-9])/top1")


@dataclass(frozen=True)
class CorruptedFolders(ImageSets):
    """A set for each `<corruption>/<severity>`, with a folder for each of the 1000 classes: ImageNet-C.

    `corruptions` and `severities` say which; None: all that are in the folder.
    """

    corruptions: Sequence[str] | None
    severities: Sequence[int] | None

    def parts(self) -> dict[str, ExtraImages]:
        """The sets by `/<corruption>/<severity>`; raises ValueError for none, or one missing or empty."""
        folder = evaluated_folder(self.name, self.path)
        corruptions = self.corruptions or _names(folder)
        found: dict[str, ExtraImages] = {}
        for corruption in corruptions:
            for severity in self.severities or [
                int(name) for name in _names(folder / corruption) if name.isdigit()
            ]:
                part = f"/{corruption}/{severity}"
                found[part] = NamedFolders(f"{self.name}{part}", f"{folder}{part}", None)
        missing = next((part for part in found if not (folder / part[1:]).is_dir()), None)
        if missing is not None or not found:
            lacking = (missing or "/<corruption>/<severity>")[1:]
            raise ValueError(
                f"eval.{self.name}.path={self.path} has no folder {lacking}/: "
                "give that of ImageNet-C, or name what it has by corruptions and severities"
            )
        for part in found:
            class_folders(folder / part[1:])  # raises, before a model has seen the others
        return found


def corruption_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """Means over the corruptions of each set, from its `<set>/<corruption>/<severity>/top1`.

    `<set>/<corruption>/error` is the mean top-1 error over severities, `<set>/mean_error` its mean over
    corruptions, `<set>/severity_<s>/top1` the mean over corruptions, `<set>/top1` one minus the mean error.
    Where all 15 published corruptions are there with severities 1 to 5, `<set>/mce` is the mean corruption
    error: each error over AlexNet's, averaged over the 15.
    """
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for name, value in metrics.items():
        if part := TOP1.fullmatch(name):
            found[part["set"]][part["corruption"]][int(part["severity"])] = 1 - value
    return {
        f"{name}/{mean}": value for name, errors in found.items() for mean, value in _means(errors).items()
    }


def _means(errors: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """The means of one set from its errors by corruption and severity."""
    by_corruption = {corruption: float(np.mean([*own.values()])) for corruption, own in errors.items()}
    severities = sorted({severity for own in errors.values() for severity in own})
    mean = float(np.mean([*by_corruption.values()]))
    means = {"top1": 1 - mean, "mean_error": mean}
    if all(set(errors.get(corruption, ())) == set(SEVERITIES) for corruption in ALEXNET_ERRORS):
        ratios = [by_corruption[corruption] / error for corruption, error in ALEXNET_ERRORS.items()]
        means["mce"] = float(np.mean(ratios))
    means |= {f"{corruption}/error": error for corruption, error in by_corruption.items()}
    for severity in severities:
        of_severity = [own[severity] for own in errors.values() if severity in own]
        means[f"severity_{severity}/top1"] = 1 - float(np.mean(of_severity))
    return means


def _names(folder: Path) -> list[str]:
    """The folders in a folder, none where there is no such folder."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
