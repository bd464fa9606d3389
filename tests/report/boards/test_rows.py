import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerbench.report import Board
from routerbench.report.boards.rows import origins_of, together

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]
PARTS = {"data": 1, "shard": 1, "expert": 1}


def notes_of(boards: list[Board]) -> list[str]:
    (board,) = boards
    return list(board.notes)


@pytest.mark.parametrize(
    ("name", "first", "second", "texts"),
    [
        ("commit", "0123456789" * 4, "0123456789" * 4 + "+changes", "0123456789, 0123456789+changes"),
        ("device", "NVIDIA H100", "NVIDIA H200", "NVIDIA H100, NVIDIA H200"),
        ("attention", "fused", "plain", "fused, plain"),
        ("backend", "bmm", "loop", "bmm, loop"),
        ("accumulation_steps", 1, 2, "1, 2"),
        ("corrupt_images", 0, 7, "0, 7"),
        ("torch", {"torch": "2.9"}, {"torch": "2.10"}, "2.10, 2.9"),
        ("timm", {"torch": "2.9"}, {"torch": "2.9", "timm": "1.0"}, "1.0, unknown"),
        ("parallel.data", PARTS, {**PARTS, "data": 8}, "1, 8"),
        ("parallel.shard", PARTS, {**PARTS, "shard": 2}, "1, 2"),
    ],
)
def test_runs_of_a_row_that_were_computed_otherwise_are_marked(
    results: Path, write_run: WriteRun, boards_of: Boards, name: str, first: Any, second: Any, texts: str
) -> None:
    where = "parallel" if name.startswith("parallel") else "versions" if isinstance(first, dict) else name
    write_run("soft", 0, 0.5, provenance={where: first})
    write_run("soft", 1, 0.5, provenance={where: second})
    assert notes_of(boards_of(results)) == [
        f"‡ the runs of this row differ in {name}",
        f"The runs of this board differ in {name}: {texts}",
    ]


def test_runs_of_other_weights_are_marked(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.5)  # from before there was a choice
    path = write_run("soft", 1, 0.5)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"evaluation": {"weights": "ema"}}))
    boards = boards_of(results)
    assert notes_of(boards) == [
        "‡ the runs of this row differ in weights",
        "The runs of this board differ in weights: ema, raw",
    ]
    assert boards[0].subtitle.endswith(", running average of the weights or raw weights")


@pytest.mark.parametrize("name", ["command", "repeat", "started", "finished", "restarts", "best_step"])
def test_what_changes_no_number_is_no_origin(
    results: Path, write_run: WriteRun, boards_of: Boards, name: str
) -> None:
    for seed in range(2):
        write_run("soft", seed, 0.5, provenance={name: f"2026-01-0{seed + 1}"})
    assert notes_of(boards_of(results)) == []


def test_a_dense_row_has_no_backend_and_is_no_other_for_that(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("dense", 0, 0.5, provenance={"backend": None})
    write_run("soft", 0, 0.5, provenance={"backend": "bmm"})
    assert notes_of(boards_of(results)) == []


def test_rows_of_two_devices_are_named_for_the_board_alone(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("hash", 0, 0.5, provenance={"device": "a"})
    write_run("soft", 0, 0.5, provenance={"device": "b"})
    assert notes_of(boards_of(results)) == ["The runs of this board differ in device: a, b"]


def test_other_data_evaluation_or_precision_is_another_board_or_row(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("soft", 0, 0.5)
    write_run("soft", 1, 0.5, data={"name": "landcover32", "test_split": "val", "image_size": 32})
    write_run("soft", 2, 0.5, precision="bf16")
    write_run("soft", 0, 0.5, settings={"capacity_factor_eval": 2.0})
    assert sorted(len(board.rows) for board in boards_of(results)) == [1, 1, 2]


def test_origins_by_hand() -> None:
    runs = [{"provenance.commit": "a"}, {"provenance.device": ["x", 1], "provenance.versions.torch": "2"}]
    assert origins_of(runs) == {
        "commit": ["a", "unknown"],
        "device": ['["x", 1]', "unknown"],
        "weights": ["raw"],
        "torch": ["2", "unknown"],
    }
    assert together([{"a": ["1"]}, {"a": ["2"], "b": ["3"]}]) == {"a": ["1", "2"], "b": ["3"]}
