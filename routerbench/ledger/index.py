"""`index.json`: the entries of all records of a folder, so that none is read twice.

It may be lost, damaged or old at any time: what it says of a record counts only while that file is the same.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from routerbench.ledger.entry import Entry
from routerbench.records import write_text

VERSION = 2  # to be counted on when what is kept of a record changes its meaning
FIELDS = [field.name for field in fields(Entry)]

Stamp = list[int]
"""Time in nanoseconds, size and inode of a file: another content has another stamp."""
Index = dict[str, tuple[Stamp, Entry]]
"""By the name of the run's folder."""


def stamps(runs: Path) -> Iterator[tuple[str, Stamp]]:
    """The runs that have a record, with its stamp, which is empty for one that may not be looked at."""
    with os.scandir(runs) as found:
        for item in found:
            try:
                state = os.stat(f"{item.path}/record.json")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                yield item.name, []
                continue
            yield item.name, [state.st_mtime_ns, state.st_size, state.st_ino]


def load(results: Path) -> Index:
    """The index of this folder; empty where it is missing, damaged or of another program."""
    try:
        content = json.loads((results / "index.json").read_bytes())
        if (content["version"], content["fields"]) != (VERSION, FIELDS):
            return {}
        return {name: (stamp, Entry(*values)) for name, (stamp, values) in content["runs"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def save(results: Path, index: Index) -> None:
    """Put the index down for the next who asks, unless the disk does not take it."""
    values = attrgetter(*FIELDS)
    runs = {name: (stamp, values(entry)) for name, (stamp, entry) in index.items()}
    content: dict[str, Any] = {"version": VERSION, "fields": FIELDS, "runs": runs}
    with suppress(OSError):
        write_text(results / "index.json", json.dumps(content, separators=(",", ":")) + "\n")
