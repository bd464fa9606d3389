"""A small sweep, and records of its cells written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from routerbench.compose import Cell, Sweep

TINY = ("data=digits", "augment=none", "epochs=2", "+model.arguments={depth:2,embed_dim:16,num_heads:2}")
WORDS = (*TINY, "num_experts=4", "router=dense,soft,hash", "seed=0,1,2")

SweepOf = Callable[..., "Sweep"]
WriteRun = Callable[..., Path]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder that is not there yet."""
    return tmp_path / "results"


@pytest.fixture
def sweep_of(results: Path) -> SweepOf:
    """A function of further words to a sweep of three routers and three seeds."""

    from routerbench.compose import compose_sweep

    def sweep(*words: str) -> "Sweep":
        return compose_sweep([*WORDS, f"runtime.results={results}", *words], None, multirun=True)

    return sweep


@pytest.fixture
def write_run(results: Path) -> WriteRun:
    """A function that records a run of a cell, with these costs, metrics and provenance."""

    from routerbench.records import run_folder, write_record

    def write(cell: "Cell", *, status: str = "done", error: str | None = None, **told: Any) -> Path:
        folder = run_folder(results, cell.run_id)
        folder.mkdir(parents=True)
        record = {
            "run_id": cell.run_id,
            "status": status,
            "error": error,
            "config": cell.settings,
            "metrics": {"test/top1": told.get("top1", 0.5)},
            "cost": {
                "flops_per_image": told.get("flops", 1000),
                "params_total": told.get("params", 100),
                "images_per_second": told.get("images", 600) / told.get("seconds", 60.0),
                "train_seconds": told.get("seconds", 60.0),
            },
            "provenance": {"device": told.get("device", "abacus"), "finished": told.get("finished")},
        }
        write_record(folder, record if status == "done" else record | {"metrics": {}, "cost": {}})
        return folder

    return write
