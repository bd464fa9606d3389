"""Image files that are decoded once: what they decode to, kept where all processes of a run find it."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

from routerbench.data.image_files import read_size

ReadImage = Callable[[int], Image.Image]


def image_reader(files: ImageFolder, cache_gib: float) -> ReadImage:
    """What gives an image by its place in the split: decoded once, if all of them fit in `cache_gib`."""
    room = min(cache_gib * 2**30, shutil.disk_usage(tempfile.gettempdir()).free)
    sizes = _sizes_within(room, [path for path, _ in files.samples])
    return partial(decode, files) if sizes is None else DecodedImages(files, sizes).read


def decode(files: ImageFolder, index: int) -> Image.Image:
    """The image at this place, from its file; raises ValueError naming it where it cannot be decoded."""
    return files.loader(files.samples[index][0])


class DecodedImages:
    """The images of a split, each kept from its first use on, in a temporary file without a name.

    The system keeps such a file in memory while there is room, shares it between processes, and drops it with
    the last of them, however that ends. It begins with a byte for each image: 1 when its pixels are there.
    """

    def __init__(self, files: ImageFolder, sizes: Sequence[tuple[int, int]]) -> None:
        self.files = files
        self.sizes = sizes
        self.starts = len(sizes) + np.cumsum([0, *(_num_bytes(size) for size in sizes)])
        with tempfile.TemporaryFile() as file:
            file.truncate(int(self.starts[-1]))
            self._own(os.dup(file.fileno()))

    def read(self, index: int) -> Image.Image:
        """The RGB image at this place; raises ValueError naming the file where it cannot be decoded."""
        size = self.sizes[index]
        if os.pread(self.file, 1, index) == b"\1":
            pixels = os.pread(self.file, _num_bytes(size), int(self.starts[index]))
            return Image.frombytes("RGB", size, pixels)
        image = decode(self.files, index)
        if image.size == size:  # a file may change, or promise in its header what it does not hold
            self._keep(index, image.tobytes())
        return image

    def _keep(self, index: int, pixels: bytes) -> None:
        try:
            whole = os.pwrite(self.file, pixels, int(self.starts[index])) == len(pixels)
        except OSError:  # the disk has filled up since: this image is decoded again
            return
        if whole:
            os.pwrite(self.file, b"\1", index)

    def _own(self, file: int) -> None:
        """Close the file with this object."""
        self.file = file
        weakref.finalize(self, os.close, file)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process that is not forked (macOS)."""
        return {**self.__dict__, "file": DupFd(self.file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own(state["file"].detach())


def _sizes_within(room: float, paths: Sequence[str]) -> list[tuple[int, int]] | None:
    """Width and height of the images by their headers; None as soon as they need more bytes than `room`."""
    sizes, need = [], 0
    for path in paths:
        sizes.append(read_size(path))
        need += 1 + _num_bytes(sizes[-1])
        if need > room:
            return None
    return sizes


def _num_bytes(size: tuple[int, int]) -> int:
    width, height = size
    return 3 * width * height
