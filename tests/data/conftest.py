"""Tiny data sets, made by hand."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """train/ with 3 + 3 and val/ with 2 + 3 PNGs of 4 x 4, no two of one colour; classes cat and dog."""
    for part, counts in (("train", (3, 3)), ("val", (2, 3))):
        for label, (name, count) in enumerate(zip(("cat", "dog"), counts, strict=True)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (4, 4), (40 * number, 200 * label, 100 if part == "val" else 0))
                image.putpixel((0, 0), (255, 255, 255))
                image.save(folder / f"{number}.png")
    return tmp_path
