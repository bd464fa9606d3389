"""The state of every run of a results folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from routerbench.ledger import index
from routerbench.ledger.attempts import latest
from routerbench.ledger.entry import Entry, entry_of
from routerbench.records import own_record, run_folder

STATES = ("done", "running", "interrupted", "failed", "diverged", "oom", "missing")
UNFINISHED = ("running", "interrupted", "missing")


@dataclass(frozen=True)
class Standing:
    """How a run stands."""

    state: str
    """One of STATES."""
    detail: str | None
    """One line: the error, why it was interrupted, or who runs it and when it was last heard of."""
    entry: Entry | None
    """Of a run that is over."""


def is_left(state: str, retry: str | None) -> bool:
    """Whether a run in this state is still to be run; `retry` names the outcomes that are not to stand."""
    return state in UNFINISHED or (retry == "all" and state != "done") or state == retry


@dataclass(frozen=True)
class Ledger:
    """What the folders of runs say."""

    results: Path
    entries: dict[str, Entry]
    """Runs that are over, by their id."""
    damaged: tuple[Path, ...]
    """Files that are no whole record."""

    def standing(self, run_id: str) -> Standing:
        """How the run of this id stands, `missing` where nothing is known of it."""
        entry, folder = self.entries.get(run_id), run_folder(self.results, run_id)
        if entry is not None:
            return Standing(entry.status, entry.error, entry)
        attempt = latest(folder)
        if attempt is not None:
            return Standing("running" if attempt.is_likely_alive() else "interrupted", str(attempt), None)
        if folder / "record.json" in self.damaged:
            return Standing("interrupted", "its record is damaged", None)
        return Standing("interrupted" if folder.is_dir() else "missing", None, None)

    def run_ids(self) -> list[str]:
        """Of all runs that have a folder."""
        runs = self.results / "runs"
        if not runs.is_dir():
            return []
        with os.scandir(runs) as found:
            return sorted(item.name for item in found if item.is_dir())


def read_ledger(results: Path) -> Ledger:
    """The ledger of a folder; without runs it is empty."""
    known, runs = index.load(results), results / "runs"
    found: index.Index = {}
    damaged: list[Path] = []
    for name, stamp in sorted(index.stamps(runs)) if runs.is_dir() else ():
        if name in known and known[name][0] == stamp:
            found[name] = known[name]
            continue
        try:
            record = own_record(runs / name)
        except (OSError, ValueError):
            damaged.append(runs / name / "record.json")
            continue
        if record is not None:  # it may be taken away while we read
            found[name] = (stamp, entry_of(record, runs / name))
    if found != known:
        index.save(results, found)
    return Ledger(results, {name: entry for name, (_, entry) in found.items()}, tuple(damaged))
