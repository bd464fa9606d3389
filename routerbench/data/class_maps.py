"""The names of classes that a set does not name itself, by timm's class maps."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from timm.data.readers.class_map import load_class_map


def read_class_map(class_map: str, root: Path) -> dict[str, int]:
    """The label of each class, from a file that is found here or in `root`.

    A .txt has the name of a class in each line, a .pkl a dict from names to labels.
    Raises ValueError for another file, or labels that are not 0, 1, 2 ...
    """
    try:
        labels = load_class_map(class_map, str(root))
    except Exception as error:  # timm asserts, and pickles break in many ways
        raise ValueError(
            f"data.class_map={class_map} cannot be read: give a .txt or .pkl file of timm's"
        ) from error
    if sorted(labels.values()) != list(range(len(labels))):
        raise ValueError(
            f"data.class_map={class_map} has labels that do not number its {len(labels)} classes: "
            "give each its own, from 0 on"
        )
    return labels


def in_order(labels: dict[str, int]) -> tuple[str, ...]:
    """The names of the classes, by their labels."""
    return tuple(sorted(labels, key=labels.__getitem__))


def named(class_map: str | None, own: tuple[str, ...], labels: list[NDArray[np.int64]]) -> tuple[str, ...]:
    """The names by the class map, else the set's own, else a number for each label up to the highest.

    Raises ValueError where a label has no name.
    """
    num_classes = 1 + max(int(of_split.max()) for of_split in labels)
    names = own if class_map is None else in_order(read_class_map(class_map, Path()))
    if not names:
        return tuple(str(label) for label in range(num_classes))
    if num_classes > len(names):
        raise ValueError(
            f"data.class_map={class_map}: the label {num_classes - 1} has no name among {len(names)}: "
            "give a line for each"
        )
    return names
