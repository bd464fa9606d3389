"""How the runs of a folder or of a sweep stand now."""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from routerbench.ledger.entry import Entry
from routerbench.ledger.ledger import UNFINISHED, Ledger, Standing
from routerbench.records import run_folder
from routerbench.sweep.named import exit_code

MOST_RECENT = 5
TAIL_BYTES = 65_536
EPOCHS = re.compile(r"^epochs: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Status:
    """Of some runs, at one moment."""

    results: Path
    standings: dict[str, Standing]
    """By run id."""
    damaged: tuple[Path, ...]

    @cached_property
    def counts(self) -> Counter[str]:
        """Runs by state."""
        return Counter(standing.state for standing in self.standings.values())

    @property
    def num_left(self) -> int:
        """Runs that are not over."""
        return sum(self.counts[state] for state in UNFINISHED)

    @property
    def exit_code(self) -> int:
        """As that of `train`."""
        return exit_code(self.counts)

    def recent(self) -> list[Entry]:
        """The latest results, the last first."""
        done = (one.entry for one in self.standings.values() if one.state == "done")
        told = (entry for entry in done if entry is not None and entry.finished is not None)
        return heapq.nlargest(MOST_RECENT, told, key=lambda entry: entry.finished or "")


def status_of(ledger: Ledger, run_ids: Iterable[str]) -> Status:
    """How these runs stand."""
    standings = {run_id: ledger.standing(run_id) for run_id in run_ids}
    known = {run_folder(ledger.results, run_id) for run_id in standings} if ledger.damaged else set()
    damaged = tuple(path for path in ledger.damaged if path.parent in known)
    return Status(ledger.results, standings, damaged)


@dataclass(frozen=True)
class Progress:
    """How far a run has come, by the last of its rows."""

    row: dict[str, Any]
    """The latest of each metric, with `step` and `epoch`."""
    epochs: str
    """Of the whole run, a question mark where that is not known."""


def progress_of(folder: Path) -> Progress | None:
    """That of a run in its midst; None before its first row."""
    latest: dict[str, Any] = {}
    for line in _last_lines(folder / "metrics.jsonl"):
        row = _row(line)
        if {"step", "epoch"} <= row.keys():
            latest |= row
    if not latest:
        return None
    found = EPOCHS.search(_text(folder / "config.yaml"))
    return Progress(latest, found[1] if found else "?")


def _last_lines(path: Path) -> list[bytes]:
    """Those at the end of a file, of which the first may be a part; none of a file that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            return file.read().splitlines()
    except OSError:
        return []


def _row(line: bytes) -> dict[str, Any]:
    """Nothing of half a line, which is being written."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def as_json(status: Status) -> dict[str, Any]:
    """For a program: counts, every run that is not done, and the latest results."""
    runs = [
        {"run_id": run_id, "state": one.state, "detail": one.detail} | _where(status.results, run_id, one)
        for run_id, one in status.standings.items()
        if one.state != "done"
    ]
    return {
        "results": str(status.results),
        "counts": dict(status.counts),
        "runs": runs,
        "latest": [
            {"run_id": entry.run_id, "top1": entry.top1, "finished": entry.finished}
            for entry in status.recent()
        ],
        "damaged": [str(path) for path in status.damaged],
    }


def _where(results: Path, run_id: str, standing: Standing) -> dict[str, Any]:
    """How far a run under way has come."""
    if standing.state != "running":
        return {}
    progress = progress_of(run_folder(results, run_id))
    return {"progress": None if progress is None else progress.row}
