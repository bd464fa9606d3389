"""ImageNet-C: which sets are in its folder, and the means over them by hand."""

import re
from pathlib import Path

import pytest

from routerbench.data.corruptions import ALEXNET_ERRORS, CorruptedFolders, corruption_means
from routerbench.data.extra import NamedFolders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("fog/1/x", "fog/3/x", "snow/1/x", "snow/10/x", "snow/readme"):
        (tmp_path / part).mkdir(parents=True)
    return tmp_path


def sets(folder: Path, *chosen: list[str] | list[int] | None) -> CorruptedFolders:
    return CorruptedFolders("imagenet_c", str(folder), *chosen)  # type: ignore[arg-type]


def test_what_is_in_the_folder(folder: Path) -> None:
    found = sets(folder, None, None).parts()
    assert list(found) == ["/fog/1", "/fog/3", "/snow/1", "/snow/10"]
    assert found["/fog/3"] == NamedFolders("imagenet_c/fog/3", f"{folder}/fog/3", None)
    assert list(sets(folder, ["fog"], [3]).parts()) == ["/fog/3"]


@pytest.mark.parametrize(
    ("chosen", "missing"),
    [((["fog"], [2]), "fog/2"), ((["rain"], [1]), "rain/1"), ((["rain"], None), "<corruption>/<severity>")],
)
def test_what_is_not(chosen: tuple[list[str], list[int] | None], missing: str, folder: Path) -> None:
    text = (
        f"eval.imagenet_c.path={folder} has no folder {missing}/: give that of ImageNet-C, or name what it "
        "has by corruptions and severities"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        sets(folder, *chosen).parts()
    with pytest.raises(ValueError, match=r"^eval\.imagenet_c\.path=null is no folder: give that of its ima"):
        CorruptedFolders("imagenet_c", None, None, None).parts()


def test_a_set_without_classes_is_refused_with_the_others(folder: Path) -> None:
    (folder / "wiggle" / "1").mkdir(parents=True)
    text = f"{folder}/wiggle/1 has no class folders: it needs one folder of images per class"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        sets(folder, None, None).parts()


def test_means_by_hand() -> None:
    metrics = {
        "c/fog/1/top1": 0.9,
        "c/fog/2/top1": 0.5,
        "c/snow/1/top1": 0.1,
        "test/top1": 1.0,
        "c/a/top1": 0.0,
    }
    means = corruption_means(metrics)
    expected = {
        "c/fog/error": 0.3,
        "c/snow/error": 0.9,
        "c/mean_error": 0.6,
        "c/top1": 0.4,
        "c/severity_1/top1": 0.5,
        "c/severity_2/top1": 0.5,
    }
    assert means == pytest.approx(expected)
    assert corruption_means({"test/top1": 1.0}) == {}


def test_the_mean_corruption_error_of_alexnet_is_one() -> None:
    errors = {
        f"c/{corruption}/{severity}/top1": 1 - error
        for corruption, error in ALEXNET_ERRORS.items()
        for severity in range(1, 6)
    }
    assert len(ALEXNET_ERRORS) == 15
    assert corruption_means(errors)["c/mce"] == pytest.approx(1)
    assert corruption_means(errors | {"c/saturate/1/top1": 0.0})["c/mce"] == pytest.approx(1)  # an extra one
    errors.pop("c/fog/5/top1")
    assert "c/mce" not in corruption_means(errors)
