"""Image files that are decoded once: what they decode to, kept where all processes of a run find it."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from PIL import Image

from routerbench.data.image_files import ImageFiles
from routerbench.data.seeded_images import ReadImage


def image_reader(files: ImageFiles, cache_gib: float) -> ReadImage:
    """What gives an image and its label by their place: decoded once, if all images fit in `cache_gib`."""
    room = min(cache_gib * 2**30, shutil.disk_usage(tempfile.gettempdir()).free)
    sizes = _sizes_within(room, files)
    return files.read if sizes is None else DecodedImages(files, sizes).read


class DecodedImages:
    """The images of a split, each kept from its first use on, in a temporary file without a name.

    The system keeps such a file in memory while there is room, shares it between processes, and drops it with
    the last of them, however that ends. It begins with a byte for each image: 1 when its pixels are there.
    """

    def __init__(self, files: ImageFiles, sizes: Sequence[tuple[int, int]]) -> None:
        self.files = files
        self.sizes = sizes
        self.starts = len(sizes) + np.cumsum([0, *(_num_bytes(size) for size in sizes)])
        with tempfile.TemporaryFile() as file:
            file.truncate(int(self.starts[-1]))
            self._own(os.dup(file.fileno()))

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The RGB image and its label; raises ValueError naming the file where it cannot be decoded."""
        size = self.sizes[index]
        if os.pread(self.file, 1, index) == b"\1":
            pixels = os.pread(self.file, _num_bytes(size), int(self.starts[index]))
            return Image.frombytes("RGB", size, pixels), self.files.label(index)
        image, label = self.files.read(index)
        if image.size == size:  # a file may change, or promise in its header what it does not hold
            self._keep(index, image.tobytes())
        return image, label

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


def _sizes_within(room: float, files: ImageFiles) -> list[tuple[int, int]] | None:
    """Width and height of the images by their headers; None as soon as they need more bytes than `room`."""
    sizes, need = [], 0
    for index in range(len(files)):
        sizes.append(files.size(index))
        need += 1 + _num_bytes(sizes[-1])
        if need > room:
            return None
    return sizes


def _num_bytes(size: tuple[int, int]) -> int:
    width, height = size
    return 3 * width * height
