"""What was found of a row's runs after training, over their seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from routerbench.evaluations.found import Numbers, number_at
from routerbench.report.boards.rows import CONFIDENCE, Row
from routerbench.report.runs.run import text_of
from routerbench.stats import Estimate, t_interval

SPECIALISATION = ("inspect", "trained")
NMI = ("class", "position")  # what experts may be told from: see `routerbench inspect`
MOST_POINTS = 0.1  # that an accuracy may depend on batch-mates


@dataclass(frozen=True)
class Sensitivity:
    """By how many points the accuracy of a row hangs on batch-mates, in groups of its own size."""

    mode: str
    points: float

    @property
    def told(self) -> bool:
        """Whether it is more than the board leaves unsaid."""
        return self.points > MOST_POINTS


def estimate_at(row: Row, study: str, mode: str, name: str) -> Estimate:
    """The mean over the finished runs that have this number, with its t-interval, in the number's unit."""
    return t_interval([value for _, value in values_at(row, study, mode, name)], CONFIDENCE)


def values_at(row: Row, study: str, mode: str, name: str) -> list[tuple[int, float]]:
    """This number of each finished run that has it, with its seed."""
    found = [
        (run["config.seed"], number_at(run.get("evaluations", {}), study, mode, name))
        for run in row.runs
        if run["status"] == "done"
    ]
    return [(seed, value) for seed, value in found if value is not None]


def modes_of(row: Row, study: str) -> list[str]:
    """The modes that any of the row's finished runs has of a study, in the order of the records."""
    return list(dict.fromkeys(mode for mode, _ in _measured(row, study)))


def specialisation(row: Row, what: str) -> Estimate:
    """How much of the experts' choice `what` of `NMI` explains: 1 all of it, 0 as much as by chance."""
    return estimate_at(row, *SPECIALISATION, what)


def sensitivity_of(row: Row) -> Sensitivity | None:
    """The mean over seeds, None where it was not measured in the groups of the row's training."""
    mode = f"group={text_of(row.settings.get('group'))}"
    points = estimate_at(row, "batches", mode, "sensitivity_points")
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
