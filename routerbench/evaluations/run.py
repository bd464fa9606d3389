"""The runner: what is not in the record of a run yet is measured, and kept at once."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from itertools import chain, islice
from typing import Any

import torch

from routerbench.evaluations.measurement import (
    Asked,
    Measurement,
    Result,
    basis_of,
    entries_of,
    entry_name,
    rests_on,
)
from routerbench.load import FinishedRun
from routerbench.provenance import provenance
from routerbench.records import keep_evaluation


@dataclass(frozen=True)
class Entry:
    """One entry of a record, as `evaluations.<study>.<mode>`."""

    study: str
    mode: str
    result: Result
    measured: bool
    """False where it was there already."""


def evaluate(run: FinishedRun, studies: Sequence[str], asked: Asked, again: bool) -> Iterator[Entry]:
    """All that is asked of a run, study by study; `again`: also what is in the record already.

    A study goes on when its measurement is in the record, so that it can draw all of them at its end. Raises
    ValueError for what the run cannot be asked, before anything is measured, and UnwritableError.
    """
    origin = _origin(run, asked)
    begun = [(study, _begun(measurements_of(study)(run, asked))) for study in studies]
    for study, measurements in begun:
        for measurement in measurements:
            mode = entry_name(run, measurement.mode)
            basis = basis_of(run) | dict(measurement.rests_on)
            standing = None if again else _standing(run, study, mode, basis)
            if standing is not None:
                yield Entry(study, mode, standing, measured=False)
                continue
            result, seconds = _taken(run, measurement)
            result["origin"] = basis | origin | {"seconds": seconds, "finished": _now()}
            keep_evaluation(run.folder, run.record, study, mode, result)
            yield Entry(study, mode, result, measured=True)


def _begun(measurements: Iterator[Measurement]) -> Iterator[Measurement]:
    """The same measurements, begun: a study refuses before its first what the run cannot be asked."""
    first = list(islice(measurements, 1))
    return chain(first, measurements)


def measurements_of(study: str) -> Callable[[FinishedRun, Asked], Iterator[Measurement]]:
    """What a study asks of a run; its module is read when it is needed."""
    return import_module(f"routerbench.evaluations.{study}.study").measurements


def _standing(run: FinishedRun, study: str, mode: str, basis: Mapping[str, Any]) -> Result | None:
    """What the record has of a mode now, which another process may have measured meanwhile.

    None where it rests on something else: another method, other images, other settings.
    """
    entry = entries_of(run, study).get(mode, {})
    return entry if rests_on(entry, basis) else None


def _taken(run: FinishedRun, measurement: Measurement) -> tuple[Result, float]:
    """The measurement, without a value for what is no number, and the seconds that it took."""
    started = time.perf_counter()
    try:
        result = measurement.take()
    except torch.OutOfMemoryError:
        raise ValueError(
            f"--batch-size={run.config.batch_size} takes more memory than {run.device} has: give fewer"
        ) from None
    known = {name: value if _is_told(value) else None for name, value in result.items()}
    return known, time.perf_counter() - started


def _is_told(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _origin(run: FinishedRun, asked: Asked) -> Result:
    """How a number was made, which does not change it but by rounding."""
    told = provenance(run.device)
    return {
        "weights": run.weights,
        "precision": run.config.precision,
        "batch_size": run.config.batch_size,
        "seed": asked.seed,
        "device": told["device"],
        "commit": told["commit"],
        "versions": told["versions"],
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
