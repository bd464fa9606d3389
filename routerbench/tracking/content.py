"""What of a run goes to W&B: its rows, and a summary with its record."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from routerbench.found import evaluations_of, number_at
from routerbench.records import SCHEMA, digest

RECORD, DIGEST = "record", "record_sha256"
# Of single layers; the averages over layers have all metrics.
OF_LAYERS = ("load_cv", "demand_cv", "dead_expert_fraction", "dropped_fraction", "entropy")

# Of what was found after training, by the names that it has in W&B: study, mode and name in the record. The
# record keeps the rest.
HEADLINES = {
    "eval/dropless_top1": ("capacity", "dropless=true", "top1"),
    "eval/ece": ("capacity", "trained", "ece"),
    "eval/random_router_lost_points": ("routers", "random", "top1_lost_points"),
    "eval/class_nmi": ("inspect", "trained", "class"),
    "eval/position_nmi": ("inspect", "trained", "position"),
    "eval/next_layer_nmi": ("inspect", "trained", "next_layer"),
}
OF_OWN_GROUP = ("sensitivity_points", "changed_fraction")
OF_COMPUTE = ("slots_right_minus_wrong", "spearman_confidence")


def log_rows(run: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Log rows in the order of their steps, those of one step as one; what W&B has of them is not sent again.

    W&B takes nothing in of a step that it has. Raises what W&B raises.
    """
    for step, of_step in itertools.groupby(rows, key=lambda row: int(row["step"])):
        whole = {name: value for row in of_step for name, value in row.items()}
        if step >= run.step:
            run.log(bounded(whole), step=step, commit=True)


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of `metrics.jsonl`; without any where the file is missing."""
    path = folder / "metrics.jsonl"
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def bounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a row that goes to W&B: of a deep model no more than of one with two MoE layers.

    Whatever is not told of a single layer goes there, the averages over all layers with it. Of the layers
    the first and the last, by `OF_LAYERS`, as `routing/first/<metric>` and `routing/last/<metric>`, so that
    names do not hang on the depth either. The record and `metrics.jsonl` keep the rest.
    """
    parts = {name: _parts(name) for name in row}
    layers = list(dict.fromkeys(layer for _, layer, _ in parts.values() if layer is not None))
    kept = {}
    for name, (prefix, layer, metric) in parts.items():
        if layer is None:
            kept[name] = row[name]
        elif metric in OF_LAYERS:
            ends = [end for end, index in (("first", 0), ("last", -1)) if layers[index] == layer]
            kept |= {f"{prefix}{end}/{metric}": row[name] for end in ends}
    return kept


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record for the summary: whole, as JSON, and by names of their own its status, metrics and costs.

    The settings are left out, for W&B has them as the run's config.
    """
    # Whole, as rows that W&B writes after this change what stands there by name; JSON, as W&B takes every
    # name that it finds in a mapping for a column.
    rest = {name: part for name, part in record.items() if name != "config"}
    costs = {f"cost/{name}": cost for name, cost in (record.get("cost") or {}).items()}
    metrics = bounded(record.get("metrics") or {})
    found = {**metrics, **costs, **headlines(record)}
    return {**found, "status": record["status"], RECORD: json.dumps({"schema": SCHEMA, **rest})}


def headlines(record: Mapping[str, Any]) -> dict[str, float]:
    """A few numbers of what was found after training, as many however many modes and image sets there are."""
    found = evaluations_of(record)
    group = f"group={record['config'].get('group')}"
    compute = next(iter(found.get("compute", {})), "")
    places = {
        **HEADLINES,
        **{f"eval/{name}": ("batches", group, name) for name in OF_OWN_GROUP},
        **{f"eval/{name}": ("compute", compute, name) for name in OF_COMPUTE},
    }
    numbers = {name: number_at(found, *place) for name, place in places.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def layer_table(record: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The columns and rows of a table of the final routing: a row for each MoE layer, a column a metric."""
    by_layer: dict[str, dict[str, Any]] = {}
    for name, value in (record.get("metrics") or {}).items():
        prefix, layer, metric = _parts(name)
        if prefix == "routing/" and layer is not None:
            by_layer.setdefault(layer, {})[metric] = value
    metrics = list(dict.fromkeys(metric for of_layer in by_layer.values() for metric in of_layer))
    rows = [[layer, *(of_layer.get(metric) for metric in metrics)] for layer, of_layer in by_layer.items()]
    return ["layer", *metrics], rows


def digest_of(folder: Path) -> str | None:
    """What changes with every change of `record.json`; None where there is none."""
    try:
        return digest((folder / "record.json").read_bytes())
    except FileNotFoundError:
        return None


def _parts(name: str) -> tuple[str, str | None, str]:
    """train/routing/blocks.3/load_cv is train/routing/, blocks.3 and load_cv; without a layer None."""
    head, routing, rest = name.rpartition("routing/")
    layer, slash, metric = rest.partition("/")
    if routing and slash:
        return head + routing, layer, metric
    return head + routing, None, rest
