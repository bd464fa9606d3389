"""The state of every run of a results folder."""

from dataclasses import dataclass
from pathlib import Path

from routerbench.ledger.attempts import latest
from routerbench.ledger.entry import Entry, entry_of
from routerbench.records import each_record, run_folder

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
        return Standing("interrupted" if folder.is_dir() else "missing", None, None)

    def run_ids(self) -> list[str]:
        """Of all runs that have a folder."""
        runs = self.results / "runs"
        return sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []


def read_ledger(results: Path) -> Ledger:
    """The ledger of a folder; without runs it is empty."""
    found = list(each_record(results))
    entries = [entry_of(record, path.parent) for path, record in found if record is not None]
    return Ledger(
        results,
        {entry.run_id: entry for entry in entries},
        tuple(path for path, record in found if record is None),
    )
