"""The idx format of MNIST and its descendants: a magic number, the sizes, then the bytes.

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database, "File formats".
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


def read_images(folder: Path, name: str) -> UInt8[Tensor, "N 1 H W"]:
    """The grey images of file `name` in `folder`; raises ValueError where it is missing or damaged."""
    return torch.from_numpy(read_bytes(folder, name, num_axes=3))[:, None]


def read_labels(folder: Path, name: str) -> Int64[Tensor, "N"]:
    """The labels of file `name` in `folder`; raises ValueError where it is missing or damaged."""
    return torch.from_numpy(read_bytes(folder, name, num_axes=1)).long()


def read_bytes(folder: Path, name: str, num_axes: int) -> np.ndarray:
    """The uint8 array in `name` or `name`.gz; raises ValueError where it is missing or damaged."""
    path = find(folder, name)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): fetch it again") from error
    header = 4 * (1 + num_axes)
    magic, *sizes = (int.from_bytes(content[start : start + 4], "big") for start in range(0, header, 4))
    # 8: the elements are unsigned bytes
    if magic != 8 * 256 + num_axes or len(content) != header + int(np.prod(sizes)):
        raise ValueError(f"{path} is not an idx file of {num_axes} axes, or it is cut short: fetch it again")
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=header).reshape(sizes)


def find(folder: Path, name: str) -> Path:
    """`name` or `name`.gz, whichever `folder` has; raises ValueError where it has neither."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"data.path={str(folder)!r} has no file {name}.gz (or {name})")
