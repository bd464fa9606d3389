"""What is known of a run's routers: read where it is there, measured where it is not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routerbench.evaluations.measurement import entries_of, entry_name, rests_on
from routerbench.found import is_number
from routerbench.inspection.asked import Asked
from routerbench.inspection.figures.said import Numbers
from routerbench.inspection.measures.numbers import numbers_of
from routerbench.inspection.measures.stability import over_training
from routerbench.inspection.seeing.kept import expected_of, keep, read_kept
from routerbench.inspection.seeing.look import look
from routerbench.inspection.seeing.seen import Seen
from routerbench.load import FinishedRun
from routerbench.records import keep_evaluation, ranked_weights

STUDY = "inspect"
METHOD = 2  # of the numbers; those that the record has of another method are measured again
AT_STEP = "/agreement_at_"


@dataclass(frozen=True)
class Inspected:
    """A run and what was found of it."""

    run: FinishedRun
    folder: Path
    """Where its pictures are."""
    seen: Seen
    numbers: dict[str, Any]
    checkpoints: Mapping[int, Mapping[str, float]]
    """By step and layer, how many tokens leant to the expert of the trained model already."""


def measured(run: FinishedRun, asked: Asked) -> Inspected:
    """What is kept of the run, and what is not there yet.

    Raises ValueError where its layers cannot be looked at, it has been trained again meanwhile or its record
    holds evaluations that are none, and UnwritableError.
    """
    other = run.weights if run.weights != ranked_weights(run.record) else None
    folder = run.folder / STUDY / other if other else run.folder / STUDY
    basis = {"method": METHOD, "data": run.test.fingerprint}
    seen = _seen(run, folder, asked.again)
    numbers = _numbers(
        run,
        entry_name(run, "trained"),
        basis | {"permutations": asked.permutations, "seed": asked.seed},
        asked.again,
        lambda: numbers_of(seen, asked.permutations, asked.seed),
    )
    if other:
        return Inspected(run, folder, seen, numbers, {})
    moments = _numbers(run, "checkpoints", basis, asked.again, lambda: _by_name(over_training(run, seen)))
    return Inspected(run, folder, seen, numbers, _by_step(moments))


def _seen(run: FinishedRun, folder: Path, again: bool) -> Seen:
    training = f"{run.record.get('provenance', {}).get('finished')} {run.test.fingerprint}"
    seen = None if again else read_kept(folder, training, expected_of(run))
    if seen is None:
        seen = look(run)
        keep(folder, seen, training)
    return seen


def _numbers(
    run: FinishedRun, mode: str, basis: dict[str, Any], again: bool, measure: Callable[[], dict[str, float]]
) -> dict[str, Any]:
    """What the record holds of a mode on this basis; where it holds nothing, what is measured, and kept."""
    entry = {} if again else entries_of(run, STUDY).get(mode, {})
    if not rests_on(entry, basis):
        entry = {**measure(), "origin": basis}
        if len(entry) > 1:  # a run without checkpoints has no number of them
            keep_evaluation(run.folder, run.record, STUDY, mode, entry)
    return {name: value for name, value in entry.items() if is_number(value)}


def _by_name(found: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The agreement of the kept checkpoints as `<layer>/agreement_at_<step>`."""
    return {f"{layer}{AT_STEP}{step}": value for step, own in found.items() for layer, value in own.items()}


def _by_step(numbers: Numbers) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    for name, value in numbers.items():
        layer, _, step = name.rpartition(AT_STEP)
        if step.isdecimal() and is_number(value):
            steps.setdefault(int(step), {})[layer] = value
    return dict(sorted(steps.items()))
