"""A plan for a program to read."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from routerbench.overview.plan import Plan, Row

if TYPE_CHECKING:  # it brings scipy
    from routerbench.overview.detect import Comparison


def as_json(plan: Plan, found: Sequence["Comparison"]) -> dict[str, Any]:
    """Every number in full: FLOPs, seconds and bytes of one run, null where no earlier record tells."""
    return {
        "results": str(plan.results),
        "counts": dict(plan.counts),
        "configurations": [_configuration(row) for row in plan.rows],
        "damaged": [str(path) for path in plan.damaged],
        "detect": [asdict(one) for one in found],
    }


def _configuration(row: Row) -> dict[str, Any]:
    return {
        "group": row.group,
        "words": row.words,
        "cells": [
            {
                "run_id": cell.run_id,
                "seed": cell.settings["seed"],
                "words": cell.words,
                "state": standing.state,
                "detail": standing.detail,
            }
            for cell, standing in zip(row.cells, row.standings, strict=True)
        ],
        "left": row.num_left,
        "impossible": row.impossible,
        "device": row.device,
        "expected": None if row.expected is None else asdict(row.expected),
    }
