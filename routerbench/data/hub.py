"""Data sets of the Hugging Face hub, or of a folder in one of its formats, by timm's reader."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from timm.data.readers import create_reader

from routerbench.data.class_maps import named
from routerbench.data.image_files import EncodedFiles
from routerbench.data.sources import Source
from routerbench.data.splits import Part


@dataclass(frozen=True)
class HubFiles(EncodedFiles):
    """The rows of a split, which stay on disk."""

    reader: Any
    labels: NDArray[np.int64]
    split: str

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The split and the place in it."""
        return f"image {index} of {self.split}"

    def label(self, index: int) -> int:
        """The label alone."""
        return int(self.labels[index])

    def open(self, index: int) -> AbstractContextManager[BinaryIO]:
        """The file, which the caller closes."""
        return self.reader[index][0]


def hfds(
    path: str | None,
    train_split: str,
    test_split: str,
    image_key: str,
    label_key: str,
    class_map: str | None,
) -> Source:
    """A data set of the hub by its name, or a folder in one of its formats.

    Raises ValueError where it, one of its splits or the package `datasets` is not found.
    """
    if path is None:
        raise ValueError("data.path=null: data=hfds needs the name of a set on the hub, or its folder")
    name = Part.parse("data.train_split", train_split).name
    train, test = (open_split(path, split, image_key, label_key) for split in (name, test_split))
    names = named(class_map, tuple(train.reader.class_to_idx), [train.labels, test.labels])
    return Source(train, test, names)


def open_split(path: str, split: str, image_key: str, label_key: str) -> HubFiles:
    """The split of a data set on the hub or in a folder.

    Raises ValueError where the package `datasets` or the split is missing, or a label is.
    """
    try:
        reader: Any = create_reader(f"hfds/{path}", split=split, input_key=image_key, target_key=label_key)
    except ImportError as error:
        raise ValueError("data=hfds needs the package datasets: pip install 'routerbench[hfds]'") from error
    except Exception as error:  # of the network, the hub or the format
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"data.path={path!r} has no split {split} to read: {reason}") from error
    table = reader.dataset.data
    # timm's reader adds the column of the images where it does not exist, with nothing in it.
    empty = {name for name in table.column_names if table.column(name).null_count == len(table)}
    columns = [name for name in table.column_names if name not in empty]
    for setting, key in (("data.image_key", image_key), ("data.label_key", label_key)):
        if key not in columns:
            raise ValueError(f"{setting}={key} is no column of {path}: it has {', '.join(columns)}")
    labels = np.asarray(reader.dataset.with_format("numpy")[label_key][:], dtype=np.int64)
    if len(labels) == 0 or labels.min() < 0:
        raise ValueError(f"data.path={path!r} has images without a label in {split}: take another split")
    return HubFiles(reader, labels, f"{path} {split}")
