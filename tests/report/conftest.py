"""Records written by hand: the report is tested on files, as it meets them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from routerbench.report import Board

WriteRun = Callable[..., Path]
Boards = Callable[..., "list[Board]"]
Evaluate = Callable[[Path, Any], None]
PageOf = Callable[[Path], str]

BASE: dict[str, Any] = {
    "model": {"name": "pocket_vit", "width": 96},
    "placement": "last_2",
    "num_experts": 8,
    "capacity_factor": 1.0,
    "group": "image",
    "data": {"name": "landcover32", "path": None, "image_size": 32},
    "augment": {"flip": True},
    "epochs": 8,
    "batch_size": 64,
    "optim": {"lr": 0.001, "weight_decay": 0.05, "warmup_epochs": 1},
    "precision": "fp32",
    "eval_every": 1,
}
NO_MOE = {"placement": "none", "num_experts": None, "capacity_factor": None, "group": None}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An empty results folder."""
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def boards_of() -> Boards:
    """A function from a results folder to its boards, as `routerbench report` makes them."""
    from routerbench.report import build_boards, read_runs
    from routerbench.report.runs.metric import metric_of

    def boards(results: Path, by: Sequence[str] = ("router",), metric: str = "test/top1") -> "list[Board]":
        runs = read_runs(results).runs
        return build_boards(runs, by, metric_of(metric, runs), 0.003)

    return boards


@pytest.fixture
def page_of(boards_of: Boards) -> PageOf:
    """A function from a results folder to the text of its page."""
    from routerbench.report import read_runs
    from routerbench.report.boards.board_tables import LEGEND, section_of
    from routerbench.report.page import board_parts, page

    def text(results: Path) -> str:
        boards = boards_of(results)
        parts = board_parts(boards, [section_of(board) for board in boards])
        return page("Which is better?", parts, read_runs(results).runs, LEGEND)

    return text


@pytest.fixture
def write_run(results: Path) -> WriteRun:
    """A function that writes the record of a run and returns its path; `top1=None`: without numbers."""

    def write(
        router: str,
        seed: int,
        top1: float | None,
        status: str = "done",
        settings: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
        run_id: str | None = None,
        **config: Any,
    ) -> Path:
        dense = router == "dense"
        config = BASE | (NO_MOE if dense else {}) | config
        config |= {"router": {"name": router, **(settings or {})}, "seed": seed}
        record = {
            "schema": 1,
            "run_id": run_id or f"{len(list(results.glob('runs/*'))):03d}",
            "status": status,
            "config": config,
            "metrics": {} if top1 is None else _metrics(top1, dense),
            "cost": {} if top1 is None else _cost(dense),
            "placement_blocks": [] if dense else [4, 5],
            "provenance": _provenance() | (provenance or {}),
            "error": None if status == "done" else "it ended",
        }
        path = results / "runs" / record["run_id"] / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
        return path

    return write


@pytest.fixture
def evaluate() -> Evaluate:
    """A function that puts evaluations, {study: {mode: numbers}}, into a record beside those that it has."""

    def evaluate(path: Path, evaluations: Any) -> None:
        record = json.loads(path.read_text())
        record["evaluations"] = {**record.get("evaluations", {}), **evaluations}
        path.write_text(json.dumps(record))

    return evaluate


def _metrics(top1: float, dense: bool) -> dict[str, float]:
    metrics = {"test/top1": top1, "test/top5": 0.99, "test/balanced": top1 - 0.01, "test/loss": 0.5}
    return metrics if dense else metrics | {"routing/dropped_fraction": 0.125, "routing/load_cv": 0.5}


def _cost(dense: bool) -> dict[str, float]:
    return {
        "flops_per_image": 40_000_000 if dense else 41_250_000,
        "params_total": 1_200_000 if dense else 4_600_000,
        "params_active": 1_200_000,
        "slots_per_token": 0.0 if dense else 1.0,
        "images_per_second": 2480.5 if dense else 1310.0,
        "train_seconds": 14.25 if dense else 31.5,
        "peak_memory_gib": 0.5,
    }


def _provenance() -> dict[str, Any]:
    return {
        "commit": "0123456789" * 4,
        "versions": {"torch": "2.5.0", "timm": "1.0.9"},
        "device": "cpu",
        "command": "routerbench train",
        "started": "2026-01-01T00:00:00",
        "finished": "2026-01-01T00:01:00",
    }
