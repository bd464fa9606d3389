"""Arrays from files of others: what is not as expected is refused before it takes memory or runs code."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routerbench.arrays import UNREADABLE, open_arrays, read_array

VALUES = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with `VALUES` as x."""
    np.savez_compressed(tmp_path / "kept.npz", x=VALUES)
    return tmp_path / "kept.npz"


def read(path: Path, shape: tuple[int | None, ...] = (2, 3), kind: str = "f") -> np.ndarray:
    """The array x of a file."""
    with open_arrays(path) as file:
        return read_array(file, "x", shape, kind)


def write(path: Path, content: bytes) -> None:
    """A file whose x is made of these bytes."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", content)


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """How an array of this shape begins."""
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": descr, "fortran_order": False, "shape": shape})
    return text.getvalue()


@pytest.mark.parametrize("shape", [(2, 3), (None, 3), (None, None)])
@pytest.mark.parametrize("kind", ["f", VALUES.dtype.str])
def test_what_is_as_expected_comes_back(path: Path, shape: tuple[int | None, ...], kind: str) -> None:
    values = read(path, shape, kind)
    assert values.dtype == np.float32
    assert values.tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((3, 2), "f"), ((6,), "f"), ((None,), "f"), ((None, None, None), "f"), ((2, 3), "i"), ((2, 3), "<f8")],
)
def test_another_shape_or_kind_is_refused(path: Path, shape: tuple[int | None, ...], kind: str) -> None:
    with pytest.raises(ValueError, match=r"^x is of shape \(2, 3\) and float32$"):
        read(path, shape, kind)


def test_an_array_that_is_not_there_is_refused(path: Path) -> None:
    with open_arrays(path) as file, pytest.raises(KeyError):
        read_array(file, "y", (2, 3), "f")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(FileNotFoundError, match=r"pipe\.npz is no file$"):
        read(tmp_path / "pipe.npz")


def test_bytes_that_were_changed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    np.savez(path, x=VALUES)
    path.write_bytes(path.read_bytes().replace(VALUES.tobytes(), VALUES[::-1].tobytes()))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read(path)


@pytest.mark.parametrize("values", [VALUES.tobytes()[:-1], VALUES.tobytes() + b"more"])
def test_an_array_that_is_cut_off_or_goes_on_is_refused(path: Path, values: bytes) -> None:
    write(path, header((2, 3)) + values)
    with pytest.raises(ValueError, match=r"^x goes on after its array$|EOF"):
        read(path)


@pytest.mark.parametrize(
    "start",
    [
        header((10**13,)),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        header((), f"<U{10**8}"),
    ],
)
def test_what_would_fill_the_memory_is_not_read(
    path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A header that says 40 terabytes, one that is itself as long as it likes, and a text of 400 megabytes.
    def never(*arguments: Any, **settings: Any) -> Any:
        raise AssertionError("read")

    write(path, start)
    monkeypatch.setattr(np.lib.format, "read_array", never)
    with pytest.raises(ValueError, match=r"^x is of (version \(2, 0\)|shape \(.*\) and \S+)$"):
        read(path, (), "U")


def test_what_would_run_code_is_not_read(path: Path) -> None:
    np.savez(path, allow_pickle=True, x=np.array({"a": 1}, dtype=object))
    for kind in ("O", "f"):
        with pytest.raises(ValueError, match=r"allow_pickle=False|is of shape"):
            read(path, (), kind)


@pytest.mark.parametrize("damage", ["{[]: 1}", "{'descr': (", "if 1:\n    a\n  b", "(" * 3000, "[" * 90])
def test_a_header_that_is_none_is_unreadable(path: Path, damage: str) -> None:
    text = damage.encode().ljust(118 if len(damage) < 118 else 3100) + b"\n"
    write(path, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(UNREADABLE):
        read(path)
