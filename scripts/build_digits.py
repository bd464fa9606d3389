"""Rebuild routerbench/data/embedded/digits.npz from a scikit-learn wheel (any recent one).

    pip download --no-deps -d WHEELS scikit-learn
    python scripts/build_digits.py WHEELS OUT.npz

Writes X (1797, 8, 8) uint8 with values 0 to 16, y (1797,) and te (1797,) bool: True (test) for every fifth
image of each class.
"""

from __future__ import annotations

import gzip
import sys
import zipfile
from pathlib import Path

import numpy as np


def read_table(wheels: Path) -> np.ndarray:
    """The table (1797, 65): 64 grey values and the digit; exits with the download command if absent."""
    found = sorted(wheels.glob("scikit_learn-*.whl"))
    if not found:
        sys.exit(
            f"{wheels} has no scikit_learn-*.whl; first: pip download --no-deps -d {wheels} scikit-learn"
        )
    with zipfile.ZipFile(found[-1]) as archive:
        text = gzip.decompress(archive.read("sklearn/datasets/data/digits.csv.gz")).decode()
    return np.loadtxt(text.splitlines(), delimiter=",").astype(np.uint8)


def every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[4::5]] = True
    return chosen


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/build_digits.py WHEELS OUT.npz")
    table = read_table(Path(sys.argv[1]))
    labels = table[:, 64].astype(np.int64)
    np.savez_compressed(
        sys.argv[2], X=table[:, :64].reshape(-1, 8, 8), y=labels, te=every_fifth_of_each_class(labels)
    )


if __name__ == "__main__":
    main()
