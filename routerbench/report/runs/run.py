"""Records -> runs: plain mappings from path to value, and what makes two of them equal."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routerbench.found import evaluations_of, is_number
from routerbench.records import each_record

Run = Mapping[str, Any]  # "status", "config.router.name", "cost.flops_per_image", ... without the nulls
Settings = Mapping[str, Any]  # "router.name", "optim.lr", ...: a part of a run's configuration

PARTS = (
    "run_id",
    "status",
    "error",
    "config",
    "metrics",
    "evaluation",
    "cost",
    "placement_blocks",
    "provenance",
)
NUMBERS = ("metrics.", "cost.")


@dataclass(frozen=True)
class Found:
    """The runs of a source, the names of what could not be read there, and what else is to be said of it."""

    runs: Sequence[Run]
    damaged: Sequence[str] = ()
    remarks: Sequence[str] = ()


def read_runs(results: Path) -> Found:
    """The runs of a results folder; each has its folder under "folder" (a Path), for its curves and maps."""
    runs, damaged = [], []
    for path, record in each_record(results):
        if record is None:
            damaged.append(path.relative_to(results).as_posix())
        else:
            runs.append(run_of(record) | {"folder": path.parent})
    return Found(in_order(runs), damaged)


def run_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A whole record as a run, with the metrics and costs that are no finite numbers under "no_numbers".

    What was found of it after training stands under "evaluations", as `Evaluations`, if there is any.
    """
    run: dict[str, Any] = {}
    for part in PARTS:
        _add(run, part, record.get(part))
    unknown = [path for path, value in run.items() if path.startswith(NUMBERS) and not is_number(value)]
    for path in unknown:
        del run[path]
    found = evaluations_of(record)
    return run | ({"no_numbers": unknown} if unknown else {}) | ({"evaluations": found} if found else {})


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs in an order that does not depend on where they were found."""
    return sorted(runs, key=lambda run: (str(run.get("provenance.finished", "")), str(run["run_id"])))


def settings_of(run: Run) -> dict[str, Any]:
    """The configuration of a run without its seed."""
    return {
        path[len("config.") :]: run[path]
        for path in run
        if path.startswith("config.") and path != "config.seed"
    }


def paths_of(runs: Iterable[Run]) -> list[str]:
    """All that any of the runs has, in the order of the alphabet."""
    return sorted(set().union(*runs))


def key_of(settings: Settings) -> str:
    """A text that is equal for equal settings, whatever their order."""
    return json.dumps(settings, sort_keys=True)


def of_one_configuration(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs in groups of equal settings, by the order of each group's first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key_of(settings_of(run)), []).append(run)
    return list(groups.values())


def one_a_seed(runs: Iterable[Run]) -> list[Run]:
    """Runs of one configuration sorted by seed; of two with one seed the later finished one."""
    kept = {run["config.seed"]: run for run in sorted(runs, key=lambda run: run["status"] == "done")}
    return [kept[seed] for seed in sorted(kept)]


def text_of(value: Any) -> str:
    """A setting as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def plain(value: Any) -> Any:
    """8 for 8.0, so that both are one setting and one text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [plain(part) for part in value] if isinstance(value, list) else value


def _add(run: dict[str, Any], path: str, value: Any) -> None:
    """Add what stands at this path of a record, all that is in it by paths of their own."""
    if isinstance(value, dict):
        for name, part in value.items():
            _add(run, f"{path}.{name}", part)
    elif value is not None:
        run[sys.intern(path)] = plain(value)  # ten thousand runs have their paths in common
