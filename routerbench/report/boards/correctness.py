"""Which test images each run got right, where its folder tells, for intervals over seeds and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from routerbench.report.boards.rows import Row
from routerbench.report.runs.run import Run
from routerbench.stats import CONFIDENCE, Estimate, crossed_interval

Correct = NDArray[np.bool_]


@dataclass(frozen=True)
class Correctness:
    """By place of the row and seed: of each test image whether it was right.

    `unreadable`: the runs whose file is damaged or belongs to another score.
    """

    of_run: Mapping[tuple[int, int], Correct]
    unreadable: Sequence[str]

    @property
    def resolution(self) -> float:
        """What one test image adds to a score, 0 if no run tells; where test sets differ, of the smallest."""
        return max((1 / len(correct) for correct in self.of_run.values()), default=0.0)


def correctness_of(rows: Sequence[Row]) -> Correctness:
    """What the folders of the rows' runs hold; nothing for runs that have no folder or no such file."""
    of_run: dict[tuple[int, int], Correct] = {}
    unreadable: list[str] = []
    for place, row in enumerate(rows):
        for path, run in _files(row):
            correct = _read(path, row.scores[run["config.seed"]])
            if correct is None:
                unreadable.append(str(run["run_id"]))
            else:
                of_run[place, run["config.seed"]] = correct
    return Correctness(of_run, sorted(unreadable))


def two_level(row: int, reference: int, rows: Sequence[Row], correctness: Correctness) -> Estimate | None:
    """The difference and its interval over seeds and images; None unless all runs of the pair tell."""
    seeds = sorted(rows[row].scores.keys() & rows[reference].scores.keys())
    known = correctness.of_run
    if len(seeds) < 2 or not all((place, seed) in known for place in (row, reference) for seed in seeds):
        return None
    # A test set of as many images may still be another one.
    if _data_of(rows[row]) != _data_of(rows[reference]):
        return None
    ours, theirs = ([known[place, seed] for seed in seeds] for place in (row, reference))
    if len({len(correct) for correct in (*ours, *theirs)}) > 1:
        return None
    differences = np.stack(ours).astype(np.int8) - np.stack(theirs)
    return crossed_interval(differences, CONFIDENCE)


def _files(row: Row) -> list[tuple[Path, Run]]:
    local = [run for run in row.runs if run["config.seed"] in row.scores and "folder" in run]
    files = [(run["folder"] / "correct.npy", run) for run in local]
    return [(path, run) for path, run in files if path.is_file()]


def _read(path: Path, score: float) -> Correct | None:
    """The file's array, None where it is no such array or is not what the score was counted from."""
    try:
        # Mapped first: a damaged header may ask for more memory than there is. Pickles cannot be mapped.
        correct = np.array(open_memmap(path, mode="r"))
    except Exception:  # numpy answers damage with errors of many kinds, of the tokenizer's too
        return None
    whole = correct.dtype == np.bool_ and correct.ndim == 1 and correct.size > 0
    return correct if whole and abs(correct.mean() - score) < 1e-6 else None


def _data_of(row: Row) -> dict[str, object]:
    return {name: value for name, value in row.settings.items() if name.startswith("data.")}
