"""The runs of one configuration -> one row of a board."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from routerbench.report.runs.metric import Metric
from routerbench.report.runs.run import Run, Settings, paths_of, settings_of, text_of
from routerbench.stats import CONFIDENCE, Estimate, t_interval

UNKNOWN = "unknown"
HASH = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")
# What there is with every record, and what it means where a record does not say.
TOLD_ALWAYS = {"provenance.commit": UNKNOWN, "provenance.device": UNKNOWN, "evaluation.weights": "raw"}
# Beside the settings, what can change a number: the code and the machine, how it was computed there (parts of
# a batch after a lack of memory, processes), and images that could not be read.
ORIGINS = (
    "provenance.versions.",
    "provenance.attention",
    "provenance.backend",
    "provenance.accumulation_steps",
    "provenance.parallel.",
    "provenance.corrupt_images",
)
NAME = re.compile(r"^(provenance|evaluation)\.(versions\.)?")


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
    def mixed(self) -> list[str]:
        """The origins in which its runs differ."""
        return [name for name, values in self.origins.items() if len(values) > 1]


def row_of(label: str, compared: Settings, runs: Sequence[Run], metric: Metric) -> Row:
    """The row of runs with one configuration, one run a seed."""
    status = Counter(run["status"] for run in runs)
    done = [run for run in runs if run["status"] == "done"]
    scores = {run["config.seed"]: float(score) for run in done if (score := metric.of(run)) is not None}
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
    """By name what can change a number and is no setting: its distinct values behind these finished runs.

    Those of `TOLD_ALWAYS` stand there always, all else where one of the runs tells.
    """
    told = [path for path in paths_of(runs) if path.startswith(ORIGINS)]
    paths = dict.fromkeys([*TOLD_ALWAYS, *sorted(told)])
    return {NAME.sub("", path): sorted({_origin(run, path) for run in runs}) for path in paths}


def together(origins: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """The origins of several rows as one; a dense row has no backend, and differs in none."""
    names = dict.fromkeys(chain(*origins))
    return {name: sorted({value for one in origins for value in one.get(name, ())}) for name in names}


def _origin(run: Run, path: str) -> str:
    """The text of one origin, a commit's hash cut to ten characters."""
    value = text_of(run.get(path, TOLD_ALWAYS.get(path, UNKNOWN)))
    return HASH.sub(r"\1", value) if path == "provenance.commit" else value


def _cost_of(done: Sequence[Run]) -> Cost:
    values = {name: _values(done, f"cost.{name}") for name in Cost.__dataclass_fields__}
    means = {name: _mean(numbers) for name, numbers in values.items()}
    # A machine must hold the largest peak, not the mean one.
    return Cost(**means | {"peak_memory_gib": max(values["peak_memory_gib"], default=math.nan)})


def _values(runs: Sequence[Run], path: str) -> list[float]:
    return [float(run[path]) for run in runs if path in run]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
