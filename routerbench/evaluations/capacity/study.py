"""Capacity, number of choices and queueing changed after training: what accuracy is left for what compute."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool

from routerbench.evaluations.capacity.calibration import calibration
from routerbench.evaluations.capacity.files import draw
from routerbench.evaluations.capacity.grid import modes_of, reference_of
from routerbench.evaluations.measurement import Asked, Measurement, Result
from routerbench.evaluations.own_mode import whole
from routerbench.evaluations.seeing.observation import Observation
from routerbench.evaluations.seeing.observed import file_name, keep_images, kept_images, observed_in
from routerbench.load import FinishedRun
from routerbench.modes import Mode, changeable
from routerbench.stats import CONFIDENCE
from routerbench.stats.matched import matched_difference

SETTINGS = ("capacity_factor", "dropless", "top_k", "batch_priority", "group")
FIRST = ("top1", "executed_flops_per_image", "dropped_fraction")


def measurements(run: FinishedRun, asked: Asked) -> Iterator[Measurement]:
    """One for each mode; at the end the pictures of all that the record then holds.

    Raises ValueError, before the first, for a mode that the run cannot have.
    """
    for mode in modes_of(run, asked):
        yield Measurement(mode.name, partial(_measure, run, mode))
    draw(run)


def _measure(run: FinishedRun, mode: Mode) -> Result:
    seen, costs = observed_in(run, mode)
    keep_images(run, mode, seen)
    metrics = seen.metrics(costs) | calibration(seen.logits, seen.labels)
    difference = _to_reference(run, mode, seen) if "dropless" in changeable(run.model) else {}
    first = {name: metrics[name] for name in FIRST}
    settings = {name: getattr(whole(run, mode), name) for name in SETTINGS}
    return first | difference | metrics | {"images": len(seen.labels)} | settings


def _to_reference(run: FinishedRun, mode: Mode, seen: Observation) -> Result:
    """How many points of top-1 are won over the reference, with the interval over images."""
    if mode == (reference := reference_of(run)):
        ends = (0.0, 0.0, 0.0)
    else:
        against = matched_difference(seen.correct, _correct_in(run, reference), CONFIDENCE)
        ends = (against.mean, against.low, against.high)
    names = ("points_to_dropless", "points_to_dropless_low", "points_to_dropless_high")
    return {name: 100 * end for name, end in zip(names, ends, strict=True)}


def _correct_in(run: FinishedRun, mode: Mode) -> Bool[np.ndarray, "N"]:
    """Which images are right, by what was kept of the mode; where that is gone they are seen again."""
    kept = kept_images(run.folder, file_name(run, mode), len(run.test.labels))
    if kept is not None:
        return kept[0]
    seen, _ = observed_in(run, mode)
    keep_images(run, mode, seen)
    return seen.correct
