"""A DataFrame of records -> runs: plain mappings from path to value, and what makes two of them equal."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

Run = Mapping[str, Any]  # "status", "config.router.name", "cost.flops_per_image", ... without the nulls
Settings = Mapping[str, Any]  # "router.name", "optim.lr", ...: a part of a run's configuration


def runs_of(records: pd.DataFrame) -> list[Run]:
    """The records as runs, in an order that does not depend on the order of the rows."""
    rows = ({str(path): _plain(value) for path, value in row.items()} for row in records.to_dict("records"))
    runs = [{path: value for path, value in row.items() if value is not None} for row in rows]
    return sorted(runs, key=lambda run: (str(run.get("provenance.finished", "")), run["run_id"]))


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


def _plain(value: Any) -> Any:
    """The JSON value behind a cell of pandas, which reads 8 as 8.0 and null as nan in a column with gaps."""
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return [_plain(part) for part in value] if isinstance(value, list) else value
