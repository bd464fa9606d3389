"""Runs -> setups: the finished runs of one configuration, which is what a claim compares."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from routerbench.report.boards.cells import DENSE, OF_MOE, without
from routerbench.report.runs.metric import Metric
from routerbench.report.runs.run import Run, Settings, key_of, of_one_configuration, one_a_seed, settings_of

SAME = 0.05  # costs that differ by at most this share count as equal
GATE = ("router.scorer", "router.projection_width", "router.temperature", "router.normalize_combine")
KINDS = {  # of backbones, by what the name of a model holds between underscores
    "isotropic ConvNeXt": r"convnext_(iso|isotropic)",
    "ConvNeXt": r"convnext(v2)?",
    "ViT": r"(vit|deit|deit3|flexivit)",
}


@dataclass(frozen=True, eq=False)
class Setup:
    """One configuration with its finished runs by seed; `metric` is what is read of them.

    `unfinished`: whether it has seeds whose run failed or diverged.
    """

    key: str
    settings: Settings
    runs: dict[int, Run]
    metric: Metric
    unfinished: bool

    def score(self, seed: int) -> float:
        """The accuracy of this seed's run, in [0, 1]."""
        score = self.metric.of(self.runs[seed])
        assert score is not None, seed  # see setups_of
        return float(score)

    def get(self, name: str) -> Any:
        """A setting, None where it has none."""
        return self.settings.get(name)

    def cost(self, name: str) -> float:
        """The mean over the runs, nan where one of them does not tell."""
        return math.fsum(float(run.get(f"cost.{name}", math.nan)) for run in self.runs.values()) / len(
            self.runs
        )

    @property
    def router(self) -> str:
        return str(self.settings["router.name"])

    @property
    def dense(self) -> bool:
        return self.router == DENSE

    @property
    def kind(self) -> str | None:
        """The kind of its backbone, None of one that is no ViT and no ConvNeXt."""
        name = str(self.get("model.name")).lower()
        found = (kind for kind, part in KINDS.items() if re.search(rf"(?:^|[_/:]){part}(?:$|[_.])", name))
        return next(found, None)

    @property
    def blocks(self) -> tuple[Any, ...]:
        """The blocks that are MoE layers, as the records tell."""
        return tuple(next(iter(self.runs.values())).get("placement_blocks", ()))


def setups_of(runs: Sequence[Run], metric: Metric) -> list[Setup]:
    """The setups of the finished runs that have this metric, in the order of their settings."""
    found = []
    for same in of_one_configuration(runs):
        latest = one_a_seed(same)
        done = [run for run in latest if run["status"] == "done"]
        kept = [run for run in done if metric.of(run) is not None]
        if kept:
            settings = settings_of(kept[0])
            by_seed = {run["config.seed"]: run for run in kept}
            found.append(Setup(key_of(settings), settings, by_seed, metric, len(done) < len(latest)))
    return sorted(found, key=lambda setup: setup.key)


def matched(setups: Sequence[Setup], about: Sequence[str]) -> list[list[Setup]]:
    """The setups in groups that are equal in all settings but these; a dense setup has none of the MoE."""
    groups: dict[str, list[Setup]] = {}
    for setup in setups:
        groups.setdefault(key_of(without(setup.settings, about)), []).append(setup)
    return list(groups.values())


def with_dense(setups: Sequence[Setup], about: Sequence[str] = ()) -> list[list[Setup]]:
    """The setups in groups that are equal in all but the settings of the MoE and these."""
    return matched(setups, (*OF_MOE, *about))


def of(setups: Sequence[Setup], wanted: Callable[[Setup], bool]) -> list[Setup]:
    """Those that are wanted."""
    return [setup for setup in setups if wanted(setup)]


def equal_slots(a: Setup, b: Setup) -> bool:
    """Whether slots per token are within 5 %, in training and evaluation, and the gates are of one kind."""
    return _near(a, b, "slots_per_token") and _near_in_evaluation(a, b) and _same_gate(a, b)


def equal_compute(a: Setup, b: Setup) -> bool:
    """Whether FLOPs per image are within 5 %."""
    return _near(a, b, "flops_per_image")


def _near(a: Setup, b: Setup, cost: str) -> bool:
    one, other = a.cost(cost), b.cost(cost)
    return abs(one - other) <= SAME * max(one, other)


def _near_in_evaluation(a: Setup, b: Setup) -> bool:
    """Records from before evaluation had a cost of its own do not tell it: there it is that of training."""
    untold = all(math.isnan(setup.cost("slots_per_token_eval")) for setup in (a, b))
    return untold or _near(a, b, "slots_per_token_eval")


def _same_gate(a: Setup, b: Setup) -> bool:
    """Whether the gates' settings are equal as far as both have them (soft has none of them)."""
    return all(
        a.get(name) == b.get(name) for name in GATE if a.get("router.scorer") and b.get("router.scorer")
    )
