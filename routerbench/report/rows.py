"""The runs of one configuration -> one row of a board."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routerbench.report.metric import Metric
from routerbench.report.runs import Run, Settings, settings_of
from routerbench.stats import Estimate, t_interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cost:
    """Means over the finished runs (peak_memory_gib: the largest), nan where no run tells."""

    slots_per_token: float
    slots_per_token_eval: float
    flops_per_image: float
    flops_per_image_eval: float
    params_total: float
    params_active: float
    images_per_second: float
    train_seconds: float
    peak_memory_gib: float


@dataclass(frozen=True)
class Row:
    """One configuration over its seeds; accuracies and fractions in [0, 1], nan where no run tells.

    `compared`: the settings in which the rows of its board differ. `scores`: the board's metric by seed, of
    the finished runs. `failed` counts the runs out of memory too; `oom` says how many these are.
    """

    label: str
    compared: Settings
    settings: Settings
    runs: Sequence[Run]
    scores: Mapping[int, float]
    score: Estimate
    balanced: float
    dropped_fraction: float
    done: int
    failed: int
    oom: int
    diverged: int
    cost: Cost
    origins: Mapping[str, Sequence[str]]

    @property
    def router(self) -> str:
        return str(self.settings["router.name"])

    @property
    def unfinished(self) -> bool:
        """Some runs count in the mean and some never got there."""
        return self.done > 0 and self.failed + self.diverged > 0

    @property
    def mixed(self) -> bool:
        return any(len(values) > 1 for values in self.origins.values())


def row_of(label: str, compared: Settings, runs: Sequence[Run], metric: Metric) -> Row:
    """The row of runs with one configuration, one run a seed."""
    status = Counter(run["status"] for run in runs)
    done = [run for run in runs if run["status"] == "done"]
    scores = {run["config.seed"]: float(run[metric.path]) for run in done if metric.path in run}
    return Row(
        label=label,
        compared=compared,
        settings=settings_of(runs[0]),
        runs=runs,
        scores=scores,
        score=t_interval(list(scores.values()), CONFIDENCE),
        balanced=_mean(_values(done, "metrics.test/balanced")),
        dropped_fraction=_mean(_values(done, "metrics.routing/dropped_fraction")),
        done=len(done),
        failed=status["failed"] + status["oom"],
        oom=status["oom"],
        diverged=status["diverged"],
        cost=_cost_of(done),
        origins=origins_of(done),
    )


def origins_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The distinct commits, devices, package versions and evaluated weights behind finished runs."""
    packages = sorted({path for run in runs for path in run if path.startswith("provenance.versions.")})
    names = {"provenance.commit": "commit", "provenance.device": "device"}
    names |= {path: path.removeprefix("provenance.versions.") for path in packages}
    done = [run for run in runs if run["status"] == "done"]
    return {name: sorted({_origin(run.get(path)) for run in done}) for path, name in names.items()}


def _origin(value: Any) -> str:
    """The text of one origin, a commit's hash cut to ten characters."""
    return "unknown" if value is None else re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", str(value))


def _cost_of(done: Sequence[Run]) -> Cost:
    values = {name: _values(done, f"cost.{name}") for name in Cost.__dataclass_fields__}
    means = {name: _mean(numbers) for name, numbers in values.items()}
    # A machine must hold the largest peak, not the mean one.
    return Cost(**means | {"peak_memory_gib": max(values["peak_memory_gib"], default=math.nan)})


def _values(runs: Sequence[Run], path: str) -> list[float]:
    return [float(run[path]) for run in runs if path in run]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
