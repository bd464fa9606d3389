"""The number of a run that a board compares."""

from collections.abc import Sequence
from dataclasses import dataclass

from routerbench.printable import printable
from routerbench.report.options import TOP1
from routerbench.report.runs.run import Run, paths_of, some


@dataclass(frozen=True)
class Metric:
    """An accuracy of a record, in [0, 1], and its name for people."""

    name: str
    label: str

    @property
    def path(self) -> str:
        return f"metrics.{self.name}"


def metric_of(name: str, runs: Sequence[Run]) -> Metric:
    """The metric of this name; ValueError where no finished run has it, or where it is no accuracy."""
    of_finished = paths_of(run for run in runs if run["status"] == "done")
    metrics = [path.removeprefix("metrics.") for path in of_finished if path.startswith("metrics.")]
    known = [metric for metric in metrics if _is_accuracy(metric)]
    # Without any number at all (all runs failed) the boards still say what became of the runs.
    if name not in known and (known or name != TOP1):
        choices = printable(some(known)) or "nothing, as no run finished"
        raise ValueError(f"--metric={name} is no accuracy of these runs: they have {choices}")
    return Metric(name, "top-1 %" if name == TOP1 else f"{name} %")


def _is_accuracy(name: str) -> bool:
    return not name.startswith("routing/") and not name.endswith(("/loss", "_l2", "_std"))
