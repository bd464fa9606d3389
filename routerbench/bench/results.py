"""What was measured, read from its JSON, and what follows from it."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1
Record = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        return cls(float(low), float(median), float(high))


@dataclass(frozen=True)
class Reference:
    """A ratio from elsewhere, or one to reach; `contestant` is empty where it is for all of a case."""

    label: str
    measured_on: str
    case: str
    contestant: str
    ratio: float


def contestant(case: Record, name: str) -> Record | None:
    """The record of a contestant in a case; None where it does not take part."""
    return next((record for record in case["contestants"] if record["name"] == name), None)


def seconds(case: Record, name: str) -> Spread | None:
    """Of a step; None where there is none."""
    record = contestant(case, name)
    return Spread.of(record["seconds"]) if record and record.get("seconds") else None


def time_ratio(case: Record, name: str) -> Spread | None:
    """A contestant's seconds over those of dense in the same round; None where one of them has none."""
    ours, dense = contestant(case, name), contestant(case, "dense")
    if not ours or not dense or not ours.get("seconds") or not dense.get("seconds"):
        return None
    pairs = zip(ours["seconds"], dense["seconds"], strict=False)  # slow ones leave after the first rounds
    return Spread.of([of_ours / of_dense for of_ours, of_dense in pairs])


def memory_ratio(case: Record, name: str) -> float | None:
    """Peak memory over that of dense plus the gradients of the experts; None where there are none."""
    ours, dense = contestant(case, name), contestant(case, "dense")
    if not ours or not dense or not ours.get("peak_bytes") or not dense.get("peak_bytes"):
        return None
    if "expert_gradient_bytes" not in case:
        return None
    return ours["peak_bytes"] / (dense["peak_bytes"] + case["expert_gradient_bytes"])


def flops_per_second(case: Record, name: str) -> float | None:
    """Executed operations over the median time; None where they are not known."""
    record, spread = contestant(case, name), seconds(case, name)
    return record["flops"] / spread.median if record and spread and record.get("flops") else None


def read_results(path: Path) -> Record:
    """A JSON of `routerbench bench`; raises ValueError for another file."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        named = all(record["name"] for case in results["cases"] for record in case["contestants"])
        if results["schema"] == SCHEMA and results["provenance"]["device"] and named:
            return results
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"from={str(path)!r} is no measurement of this program: give what --json has written")


def read_references(path: Path) -> list[Reference]:
    """A CSV with the columns of `Reference`; raises ValueError for another file."""
    columns = list(Reference.__dataclass_fields__)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [Reference(**{**row, "ratio": float(row["ratio"])}) for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(
            f"references={str(path)!r} is no CSV with the columns {', '.join(columns)}, ratio a number"
        ) from error
