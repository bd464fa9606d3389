"""What is known of a run's routers: read where it is there, measured where it is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routerbench.inspection.asked import Asked
from routerbench.inspection.figures.said import Numbers
from routerbench.inspection.kept import expected_of, keep, read_kept
from routerbench.inspection.look import look
from routerbench.inspection.numbers import numbers_of
from routerbench.inspection.seen import Seen
from routerbench.inspection.stability import over_training
from routerbench.load import FinishedRun
from routerbench.records import keep_evaluation

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

    Raises ValueError where its layers cannot be looked at or it has been trained again meanwhile, and
    UnwritableError.
    """
    ranked = run.record.get("evaluation", {}).get("weights", "raw")
    other = asked.weights if asked.weights not in (None, ranked) else None
    folder = run.folder / STUDY / other if other else run.folder / STUDY
    mode = f"weights={other}" if other else "trained"
    data = run.test.fingerprint
    seen = _seen(run, folder, asked.again, data)
    kept, origin = _kept(run, mode, asked.again), _origin(asked, data)
    if kept is None or kept.get("origin") != origin:
        kept = {**numbers_of(seen, asked.permutations, asked.seed), "origin": origin}
        keep_evaluation(run.folder, run.record, STUDY, mode, kept)
    numbers = {name: value for name, value in kept.items() if name != "origin"}
    return Inspected(run, folder, seen, numbers, {} if other else _checkpoints(run, seen, asked.again))


def _origin(asked: Asked, data: Any) -> dict[str, Any]:
    """What the numbers hang on, beside the weights."""
    return {
        "method": METHOD,
        "permutations": asked.permutations,
        "seed": asked.seed,
        "data": data,
    }


def _seen(run: FinishedRun, folder: Path, again: bool, data: Any) -> Seen:
    training = f"{run.record.get('provenance', {}).get('finished')} {data}"
    seen = None if again else read_kept(folder, training, expected_of(run))
    if seen is None:
        seen = look(run)
        keep(folder, seen, training)
    return seen


def _kept(run: FinishedRun, mode: str, again: bool) -> dict[str, Any] | None:
    return None if again else run.record.get("evaluations", {}).get(STUDY, {}).get(mode)


def _checkpoints(run: FinishedRun, seen: Seen, again: bool) -> dict[int, dict[str, float]]:
    """The agreement of the kept checkpoints; none where the run has kept none."""
    numbers = _kept(run, "checkpoints", again)
    if numbers is None:
        found = over_training(run, seen)
        numbers = {
            f"{layer}{AT_STEP}{step}": value for step, own in found.items() for layer, value in own.items()
        }
        if numbers:
            keep_evaluation(run.folder, run.record, STUDY, "checkpoints", numbers)
    return _by_step(numbers)


def _by_step(numbers: Numbers) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    for name, value in numbers.items():
        layer, _, step = name.rpartition(AT_STEP)
        steps.setdefault(int(step), {})[layer] = value
    return dict(sorted(steps.items()))
