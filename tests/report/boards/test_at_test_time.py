"""Accuracy and FLOPs at test time and what is lost without routers, as tables, worked by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerbench.report import Board
from routerbench.report.boards import at_test_time
from routerbench.report.boards.at_test_time import test_time_tables as tables_of
from routerbench.report.tables.table import Table

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
Boards = Callable[..., list[Board]]


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in line.cells] for line in table.lines]


def headers(table: Table) -> list[str]:
    return [column.header for column in table.columns]


def capacity(**top1: float) -> dict[str, Any]:
    """Modes with these accuracies; a capacity factor takes so many times 10 MFLOPs."""
    names = {"half": "capacity_factor=0.5", "queued": "capacity_factor=0.5 batch_priority=true"}
    modes = {names.get(name, name): value for name, value in top1.items()}
    flops = {name: 5e6 if "0.5" in name else 10e6 for name in modes}
    results = {name: {"top1": modes[name], "executed_flops_per_image": flops[name]} for name in modes}
    return {
        "capacity": {name.replace("dropless", "dropless=true"): result for name, result in results.items()}
    }


def test_accuracy_and_flops_by_capacity_have_a_line_for_each_priority(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    evaluate(write_run("dense", 0, 0.5), capacity(trained=0.5))
    for seed, top1 in enumerate((0.6, 0.8)):
        modes = capacity(dropless=0.9, half=top1 - 0.2, trained=top1, queued=top1 - 0.1)
        evaluate(write_run("token_choice", seed, top1), modes)
    write_run("soft", 0, 0.7)
    accuracy, flops = tables_of(boards_of(results)[0])
    assert headers(accuracy) == ["row", "as trained", "at 0.5", "dropless"]
    # 12.706 * 0.1414 / sqrt(2) = 1.2706.
    assert texts(accuracy) == [
        ["dense", "50.00", "-", "-"],
        ["token_choice", "70.00 ± 127.06", "50.00 ± 127.06", "90.00 ± 0.00"],
        ["token_choice · batch_priority=true", "-", "60.00 ± 127.06", "-"],
    ]
    assert flops.caption.startswith("MFLOPs that the same evaluations executed")
    assert texts(flops) == [
        ["dense", "10.0", "-", "-"],
        ["token_choice", "10.0", "5.00", "10.0"],
        ["token_choice · batch_priority=true", "-", "5.00", "-"],
    ]


def test_points_lost_are_of_all_layers_and_means_over_seeds(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    for seed in range(2):
        other = {
            f"other_seed={1 - seed}": {"top1_lost_points": 0.5},
            "other_seed=7": {"top1_lost_points": 1.5},
        }
        lost = {"random": {"top1_lost_points": 12.0 + 2 * seed}, "random blocks.5": {"top1_lost_points": 3.0}}
        evaluate(write_run("token_choice", seed, 0.7), {"routers": lost | other})
    evaluate(write_run("soft", 0, 0.8), {"routers": {"random": {"top1_lost_points": -0.25}}})
    (table,) = tables_of(boards_of(results)[0])
    assert (table.name, headers(table)) == ("Does the router matter?", ["row", "random", "other_seed"])
    assert texts(table) == [["soft", "-0.25", "-"], ["token_choice", "+13.00 ± 12.71", "+1.00 ± 0.00"]]


def test_what_has_no_room_is_left_out_and_said(
    results: Path,
    write_run: WriteRun,
    evaluate: Evaluate,
    boards_of: Boards,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(at_test_time, "MOST_LINES", 1)
    monkeypatch.setattr(at_test_time, "MOST_COLUMNS", 2)
    evaluate(write_run("token_choice", 0, 0.7), capacity(dropless=0.9, half=0.4, trained=0.6, queued=0.5))
    accuracy, _ = tables_of(boards_of(results)[0])
    assert texts(accuracy) == [["token_choice", "60.00", "40.00"]]
    cut = "the first 1 of 2 lines and the first 2 of 3 columns"
    assert list(accuracy.notes) == [f"Only {cut}, as there is no room: the records have them all"]


def test_modes_of_another_form_and_without_numbers_are_no_tables(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    modes = {"something else": {"top1": 0.5}}
    path = write_run("soft", 0, 0.7)
    evaluate(path, {"capacity": modes, "routers": {"random": {"top1": 0.5}, "": {"top1_lost_points": 1.0}}})
    assert tables_of(boards_of(results)[0]) == []
