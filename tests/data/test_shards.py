"""Shards are read by position, and what is wrong with one is said in a line."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from routerbench.data import shards
from routerbench.data.shards import ShardFiles, wds
from routerbench.data.sources import Source


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def sample(key: str, value: int, label: int) -> dict[str, bytes]:
    return {f"{key}.png": png(value), f"{key}.cls": str(label).encode()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two shards to train on, with 2 + 1 images, and one of 2 to test on."""
    write(tmp_path / "set-train-000.tar", {**sample("a/0", 10, 1), **sample("a/1", 20, 0)})
    # The label before the image, and something that is neither.
    write(tmp_path / "set-train-001.tar", {"b/0.cls": b"2\n", "b/0.json": b"{}", "b/0.PNG": png(30)})
    write(tmp_path / "set-validation-000.tar", {**sample("0", 40, 0), **sample("1", 50, 1), "README": b"x"})
    return tmp_path


def opened(root: Path, label_key: str | None = None, class_map: str | None = None) -> Source:
    return wds(str(root), "train[:50%]", "validation", label_key, class_map)


def contents(source: Source) -> list[list[tuple[int, int]]]:
    parts = []
    for part in (source.train, source.test):
        assert isinstance(part, ShardFiles)
        assert all(part.size(index) == (4, 3) for index in range(len(part)))
        read = [part.read(index) for index in range(len(part))]
        parts.append([(image.getpixel((0, 0))[0], label) for image, label in read])  # type: ignore[index]
        assert [label for _, label in read] == [part.label(index) for index in range(len(part))]
    return parts


def test_images_come_by_position_in_the_order_of_the_shards(root: Path) -> None:
    source = opened(root)
    assert contents(source) == [[(10, 1), (20, 0), (30, 2)], [(40, 0), (50, 1)]]
    assert source.class_names == ("0", "1", "2")


def test_splits_may_be_folders(root: Path) -> None:
    for number, path in enumerate(sorted(root.glob("*.tar"))):
        folder = root / ("train" if "train" in path.name else "validation")
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"{number}.tar")
    assert contents(opened(root)) == [[(10, 1), (20, 0), (30, 2)], [(40, 0), (50, 1)]]


def test_labels_may_be_a_key_of_the_json_and_have_names(root: Path) -> None:
    for path in root.glob("*.tar"):
        write(path, {"0.jpg": png(10), "0.json": json.dumps({"species": 1, "age": 7}).encode()})
    (root / "names.txt").write_text("cat\ndog\n")
    source = opened(root, "species", str(root / "names.txt"))
    assert contents(source) == [[(10, 1), (10, 1)], [(10, 1)]]
    assert source.class_names == ("cat", "dog")


def test_a_label_without_a_name(root: Path) -> None:
    (root / "names.txt").write_text("cat\ndog\n")
    expected = f"data.class_map={root / 'names.txt'}: the label 2 has no name among 2: give a line for each"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        opened(root, class_map=str(root / "names.txt"))


def test_the_index_is_made_once_and_again_when_a_shard_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(opened(root))
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_samples", None)  # would fail if it were called
        assert contents(opened(root)) == expected
    write(root / "set-train-001.tar", sample("b/0", 60, 1))
    assert contents(opened(root))[0] == [(10, 1), (20, 0), (60, 1)]


def test_a_damaged_index_is_made_again(root: Path) -> None:
    expected = contents(opened(root))
    (kept,) = root.glob(".*train.npz")
    for content in (b"", b"PK\x03\x04 no archive", kept.read_bytes()[:100]):
        kept.write_bytes(content)
        assert contents(opened(root)) == expected


def test_a_folder_that_cannot_be_written_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", read_only)
    assert len(contents(opened(root))[0]) == 3
    assert not list(root.glob(".*.npz"))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"0.png": png(1)}, "KeyError: '/0 has no label'"),
        ({"0.cls": b"1"}, "KeyError: '/0 has no image'"),
        ({"0.png": png(1), "0.cls": b"cat"}, "ValueError: invalid literal for int() with base 10: b'cat'"),
    ],
)
def test_a_sample_that_is_not_whole(root: Path, members: dict[str, bytes], reason: str) -> None:
    path = root / "set-train-001.tar"
    write(path, members)
    expected = (
        f"{path} is no shard of images with labels ({reason}): "
        "it needs a .cls, or data.label_key in a .json, for each"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        opened(root)


def test_a_shard_that_is_cut_short_or_compressed(root: Path) -> None:
    path = root / "set-train-001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is no shard of images with labels \("):
        opened(root)
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is no shard of images with labels \("):
        opened(root)


def test_a_split_without_shards_or_images(root: Path) -> None:
    expected = f"data.path={str(root)!r} has no shards of test: test-*.tar or *-test-*.tar or test/*.tar"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        wds(str(root), "train", "test", None, None)
    write(root / "test-0.tar", {"README": b"x"})
    with pytest.raises(ValueError, match=rf"^{re.escape(str(root))} has shards without images \("):
        wds(str(root), "train", "test", None, None)


def test_a_corrupt_image_is_named_by_its_shard(root: Path) -> None:
    write(root / "set-train-001.tar", {"0.png": b"no image", "0.cls": b"2"})
    train = opened(root).train
    assert isinstance(train, ShardFiles)
    pattern = rf"^{re.escape(str(root / 'set-train-001.tar'))} from byte 512 on cannot be read as an image"
    with pytest.raises(ValueError, match=pattern):
        train.read(2)
    assert train.size(2) == (0, 0)
