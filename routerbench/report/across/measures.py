"""What a run costs, in the three ways in which configurations are compared at equal cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from routerbench.report.across.families import Configuration, Family
from routerbench.report.boards.rows import Row, origins_of
from routerbench.report.runs.metric import Metric
from routerbench.report.runs.run import Run

Origins = Mapping[str, Sequence[str]]
Taken = tuple[float, Mapping[int, float], Origins]


@dataclass(frozen=True)
class Point:
    """One configuration at one scale: its cost, its scores by seed, and where its runs are from."""

    scale: str
    row: Row
    cost: float
    scores: Mapping[int, float]
    origins: Origins


@dataclass(frozen=True)
class Measure:
    """A cost with its name, its unit (`factor` of which make one) and how it is taken from a row."""

    name: str
    unit: str
    factor: float
    note: str
    take: Callable[[Row], Taken]

    def points(self, configuration: Configuration) -> list[Point]:
        """The scales whose cost is known and that have a score, from the cheapest."""
        points = [Point(scale, row, *self.take(row)) for scale, row in configuration.rows.items()]
        known = [point for point in points if point.scores and point.cost > 0]
        return sorted(known, key=lambda point: (point.cost, point.scale))


def measures_of(family: Family) -> list[Measure]:
    """FLOPs, the time on each device and the parameters, as far as the family's records know them."""
    rows = [row for one in family.configurations for row in one.rows.values()]
    devices = sorted({device for row in rows for run in row.runs if (device := _device(run))})
    measures = [_flops(rows), *(_seconds(device, rows, family.metric) for device in devices), _parameters()]
    return [measure for measure in measures if any(map(measure.points, family.configurations))]


def scores_of(points: Sequence[Point], seeds: Sequence[int]) -> np.ndarray:
    """The scores as (points, seeds), nan where a seed has none."""
    return np.array([[point.scores.get(seed, math.nan) for seed in seeds] for point in points])


def seeds_of(points: Sequence[Point]) -> list[int]:
    """All seeds of these points, in order."""
    return sorted({seed for point in points for seed in point.scores})


def _flops(rows: Sequence[Row]) -> Measure:
    giga = any(row.cost.flops_per_image >= 1e9 for row in rows)
    unit, factor = ("GFLOPs", 1e9) if giga else ("MFLOPs", 1e6)
    note = "FLOPs of an image's forward pass in training, over all slots."
    return Measure("active FLOPs", unit, factor, note, lambda row: _taken(row.cost.flops_per_image, row))


def _parameters() -> Measure:
    note = "All parameters, as all must be stored and held; how many are active goes with the FLOPs."
    return Measure("parameters", "M", 1e6, note, lambda row: _taken(row.cost.params_total, row))


def _taken(cost: float, row: Row) -> Taken:
    return cost, row.scores, row.origins


def _seconds(device: str, rows: Sequence[Row], metric: Metric) -> Measure:
    slow = any(_on_device(row, device, metric)[0] >= 1e-3 for row in rows)
    unit, factor = ("ms", 1e-3) if slow else ("µs", 1e-6)
    note = f"Time to train on an image, of runs on this device alone: {device}."
    return Measure(f"time on {device}", unit, factor, note, lambda row: _on_device(row, device, metric))


def _on_device(row: Row, device: str, metric: Metric) -> Taken:
    """Seconds per image, their mean over the runs on a device, with the scores of these runs alone."""
    done = [run for run in row.runs if run["status"] == "done" and _device(run) == device]
    timed = [run for run in done if run.get("cost.images_per_second", 0) > 0]
    found = [(run, float(score)) for run in timed if (score := metric.of(run)) is not None]
    runs = [run for run, _ in found]
    seconds = [1 / float(run["cost.images_per_second"]) for run in runs]
    scores = {run["config.seed"]: score for run, score in found}
    mean = math.fsum(seconds) / len(seconds) if seconds else math.nan
    return mean, scores, row.origins if len(runs) == row.done else origins_of(runs)


def _device(run: Run) -> str | None:
    device = run.get("provenance.device")
    return None if device is None else str(device)
