"""Records -> runs: plain mappings from path to value, and what makes two of them equal."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routerbench.records import whole_records

Run = Mapping[str, Any]  # "status", "config.router.name", "cost.flops_per_image", ... without the nulls
Settings = Mapping[str, Any]  # "router.name", "optim.lr", ...: a part of a run's configuration


@dataclass(frozen=True)
class Found:
    """The runs of a source, and the names of what could not be read there."""

    runs: Sequence[Run]
    damaged: Sequence[str]


def read_runs(results: Path) -> Found:
    """The runs of a results folder; each has its folder under "folder" (a Path), for its curves and maps."""
    records, damaged = whole_records(results)
    runs = [run_of(record) | {"folder": folder} for folder, record in records]
    return Found(in_order(runs), [path.relative_to(results).as_posix() for path in damaged])


def run_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a run."""
    return dict(_flat("", record))


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs in an order that does not depend on where they were found."""
    return sorted(runs, key=lambda run: (str(run.get("provenance.finished", "")), str(run["run_id"])))


def settings_of(run: Run) -> dict[str, Any]:
    """The configuration of a run without its seed."""
    settings = {path.removeprefix("config."): run[path] for path in sorted(run) if path.startswith("config.")}
    settings.pop("seed")
    return settings


def key_of(settings: Settings) -> str:
    """A text that is equal for equal settings, whatever their order."""
    return json.dumps(settings, sort_keys=True)


def finished_last(runs: Iterable[Run]) -> list[Run]:
    """The runs sorted by seed; where two have configuration and seed in common, the one finished later."""
    kept = {(key_of(settings_of(run)), run["config.seed"]): run for run in runs}
    return sorted(kept.values(), key=lambda run: run["config.seed"])


def text_of(value: Any) -> str:
    """A setting as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), part)
    elif value is not None and value != {}:
        yield prefix, _plain(value)


def _plain(value: Any) -> Any:
    """8 for 8.0, so that both are one setting and one text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(part) for part in value] if isinstance(value, list) else value
