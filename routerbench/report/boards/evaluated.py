"""What was found of a row's runs after training, over their seeds."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from routerbench.found import MOST_POINTS, Numbers
from routerbench.report.boards.modes import TRAINED
from routerbench.report.boards.rows import Row
from routerbench.report.runs.run import text_of
from routerbench.stats import CONFIDENCE, Estimate, t_interval

INSPECT, BATCHES = "inspect", "batches"
NMI = ("class", "position")  # what experts may be told from: see `routerbench inspect`


@dataclass(frozen=True)
class Sensitivity:
    """By how many points the accuracy of a row hangs on batch-mates, in groups of its own size."""

    mode: str
    points: float

    @property
    def told(self) -> bool:
        """Whether it is more than the board leaves unsaid."""
        return self.points > MOST_POINTS


def estimate_at(row: Row, study: str, modes: Collection[str], name: str) -> Estimate:
    """The mean over the finished runs that have this number, with its t-interval, in the number's unit.

    `modes`: of those that a run has of them, the mean stands for the run.
    """
    return t_interval(values_at(row, study, modes, name), CONFIDENCE)


def values_at(row: Row, study: str, modes: Collection[str], name: str) -> list[float]:
    """This number of each finished run that has it, in the order of their seeds."""
    done = [run.get("evaluations", {}).get(study, {}) for run in row.runs if run["status"] == "done"]
    found = [[own[mode][name] for mode in own if mode in modes and name in own[mode]] for own in done]
    return [math.fsum(values) / len(values) for values in found if values]


def modes_of(row: Row, study: str) -> list[str]:
    """The modes that any of the row's finished runs has of a study, in the order of the records."""
    return list(dict.fromkeys(mode for mode, _ in _measured(row, study)))


def specialisation(row: Row, what: str) -> Estimate:
    """How much of the experts' choice `what` of `NMI` explains: 1 all of it, 0 as much as by chance."""
    return estimate_at(row, INSPECT, [TRAINED], what)


def sensitivity_of(row: Row) -> Sensitivity | None:
    """The mean over seeds, None where it was not measured in the groups of the row's training."""
    mode = f"group={text_of(row.settings.get('group'))}"
    modes = [one for one in modes_of(row, BATCHES) if one.split()[:1] == [mode]]
    points = estimate_at(row, BATCHES, modes, "sensitivity_points")
    return Sensitivity(mode, points.mean) if points.n else None


def on_batch_mates(rows: Sequence[Row]) -> str:
    """Which accuracies hang on the images that share a batch, by how much, and what would do."""
    found = [(row, own) for row in rows if (own := sensitivity_of(row)) is not None and own.told]
    told = ", ".join(f"{row.label} {own.points:.2f} points ({own.mode})" for row, own in found)
    return (
        f"the accuracy of this row depends on which images are batched together, by more than {MOST_POINTS} "
        f"points: {told}; evaluated with group=image it does not: routerbench eval RUN --group image"
    )


def _measured(row: Row, study: str) -> Iterator[tuple[str, Numbers]]:
    for run in row.runs:
        if run["status"] == "done":
            yield from run.get("evaluations", {}).get(study, {}).items()
