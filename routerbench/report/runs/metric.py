"""The number of a run that a board compares."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from routerbench.checks import did_you_mean
from routerbench.found import number_at
from routerbench.printable import printable, some
from routerbench.report.boards.cells import is_dense
from routerbench.report.options import EVALUATED, TOP1
from routerbench.report.runs.run import Run, paths_of

ACCURACY = re.compile(r"(top1|top5|balanced)(_mean|_ordered)?|shots_\d+")  # of an evaluation
OF_MOE_ALONE = "capacity"  # the study of what a dense run has not


@dataclass(frozen=True)
class Metric:
    """An accuracy of a record, in [0, 1], and its name for people.

    `place`: the study, mode and name of one that was found after training, None of those that training left.
    """

    name: str
    label: str
    place: tuple[str, str, str] | None = None

    def of(self, run: Run) -> int | float | None:
        """The accuracy of this run, None where it has none."""
        if self.place is None:
            return run.get(f"metrics.{self.name}")
        found = number_at(run.get("evaluations", {}), *self.place)
        if found is None and is_dense(run) and self.place[0] == OF_MOE_ALONE:
            return run.get(f"metrics.test/{self.place[-1]}")  # without slots it has one accuracy in all modes
        return found


def metric_of(name: str, runs: Sequence[Run]) -> Metric:
    """The metric of this name; ValueError where no finished run has it, or where it is no accuracy."""
    done = [run for run in runs if run["status"] == "done"]
    metrics = [path.removeprefix("metrics.") for path in paths_of(done) if path.startswith("metrics.")]
    known = [metric for metric in metrics if _is_accuracy(metric)]
    places = {_spelt(place): place for place in sorted(set(_places(done)))}
    if name in places:
        study, mode, accuracy = places[name]
        return Metric(name, f"{accuracy} % ({mode})", (study, mode, accuracy))
    if name.startswith(EVALUATED) and places:
        text = some(list(places)) + did_you_mean(name, list(places))
        raise ValueError(printable(f"--metric={name} is in no evaluation of these runs: they have {text}"))
    # Without any number at all (all runs failed) the boards still say what became of the runs.
    if name not in known and (known or name != TOP1):
        choices = printable(some([*known, *places])) or "nothing, as no run finished"
        raise ValueError(f"--metric={name} is no accuracy of these runs: they have {choices}")
    return Metric(name, "top-1 %" if name == TOP1 else f"{name} %")


def _is_accuracy(name: str) -> bool:
    return not name.startswith("routing/") and not name.endswith(("/loss", "_l2", "_std"))


def _places(runs: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    """Where the accuracies of evaluations stand."""
    for run in runs:
        for study, modes in run.get("evaluations", {}).items():
            for mode, numbers in modes.items():
                yield from ((study, mode, name) for name in numbers if ACCURACY.fullmatch(name))


def _spelt(place: tuple[str, str, str]) -> str:
    return EVALUATED + "/".join(place)
