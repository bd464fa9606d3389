"""Arrays of an .npz file that anyone may have written: read once they say that they are what is expected."""

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, TypeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What a file that is damaged, or made to do damage, can raise when it is opened and read."""

PLAIN = (1, 0)  # the version of all arrays that numpy writes of numbers; headers of others may take gigabytes
MOST_OF_ITEM = 1_000  # bytes, far above those of a number and of the time at which a training ended


def open_arrays(path: Path) -> zipfile.ZipFile:
    """The file, to read arrays from; raises `UNREADABLE` for what is none, such as a pipe without an end."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    return zipfile.ZipFile(path)


def read_array(file: zipfile.ZipFile, name: str, shape: tuple[int | None, ...], kind: str) -> np.ndarray:
    """The array of this name, read once its header has this shape and kind; raises `UNREADABLE` else.

    shape: None for an axis of any length. kind: numpy's letter for it (f), or one type alone (<f4).
    """
    with file.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version != PLAIN:
            raise ValueError(f"{name} is of version {version}")
        told, _, dtype = np.lib.format.read_array_header_1_0(member)
    fits = len(told) == len(shape) and all(
        want in (None, length) for want, length in zip(shape, told, strict=True)
    )
    if not fits or kind not in (dtype.kind, dtype.str) or dtype.itemsize > MOST_OF_ITEM:
        raise ValueError(f"{name} is of shape {told} and {dtype}")
    with file.open(f"{name}.npy") as member:
        values = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # at its end the file compares the checksum
            raise ValueError(f"{name} goes on after its array")
    return values
