"""What was found after training, on the board: specialisation, and the mark of what hangs on batch-mates."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from routerbench.report import Board
from routerbench.report.boards import board_tables
from routerbench.report.boards.board import marks
from routerbench.report.boards.board_tables import section_of
from routerbench.report.boards.evaluated import Sensitivity, sensitivity_of, specialisation
from routerbench.report.boards.sheet import csv
from routerbench.report.tables.table import Table

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
Boards = Callable[..., list[Board]]


def headers(table: Table) -> list[str]:
    return [column.header for column in table.columns]


def column(table: Table, header: str) -> list[str]:
    return [line.cells[headers(table).index(header)].text for line in table.lines]


def write_nmi(write_run: WriteRun, evaluate: Evaluate, *values: float) -> None:
    for seed, value in enumerate(values):
        numbers = {"class": value, "class_low": 0.0, "blocks.5/class": 0.9}
        evaluate(write_run("soft", seed, 0.7), {"inspect": {"trained": numbers}})


def test_specialisation_is_a_mean_over_seeds_with_its_interval(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    write_nmi(write_run, evaluate, 0.2, 0.3)
    write_run("soft", 2, 0.7)  # was not looked at
    write_run("dense", 0, 0.6)
    (board,) = boards_of(results)
    rows, *_ = section_of(board).tables
    # Mean 0.25, half-width 12.706 * 0.0707 / sqrt(2) = 0.635.
    assert column(rows, "class NMI") == ["-", "0.250 ± 0.635"]
    assert "position NMI" not in headers(rows)
    assert headers(rows).index("class NMI") == headers(rows).index("dropped %") + 1
    assert board_tables.legend_of([board]) == [*board_tables.LEGEND, board_tables.SPECIALISED]
    sheet = pd.read_csv(StringIO(csv([board])))
    assert sheet["class_nmi_mean"].tolist()[1] == 0.25
    assert sheet["class_nmi_n"].tolist()[1] == 2
    assert "position_nmi_mean" not in sheet


def test_a_run_that_failed_tells_nothing(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    evaluate(write_run("soft", 0, None, "failed"), {"inspect": {"trained": {"class": 0.5}}})
    (board,) = boards_of(results)
    assert specialisation(board.rows[0], "class").n == 0
    assert "class NMI" not in headers(section_of(board).tables[0])


def test_a_board_without_evaluations_is_as_it_was(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("soft", 0, 0.7)
    (board,) = boards_of(results)
    assert [table.name for table in section_of(board).tables] == [""]
    assert board_tables.legend_of([board]) == list(board_tables.LEGEND)
    assert not {"sensitivity_points", "class_nmi_mean"} & set(pd.read_csv(StringIO(csv([board]))))


@pytest.mark.parametrize(("points", "sign"), [((0.05, 0.35), "¶"), ((0.0, 0.2), ""), ((0.1,), "")])
def test_a_row_whose_accuracy_hangs_on_batch_mates_is_marked(
    results: Path,
    write_run: WriteRun,
    evaluate: Evaluate,
    boards_of: Boards,
    points: tuple[float, ...],
    sign: str,
) -> None:
    for seed, value in enumerate(points):
        modes = {"group=8": {"sensitivity_points": value}, "group=image": {"sensitivity_points": 0.0}}
        evaluate(write_run("token_choice", seed, 0.7, group=8), {"batches": modes})
    (board,) = boards_of(results)
    assert marks(0, board) == sign
    told = (
        "¶ the accuracy of this row depends on which images are batched together, by more than 0.1 points: "
        "token_choice 0.20 points (group=8); evaluated with group=image it does not: routerbench eval RUN "
        "--group image"
    )
    assert list(board.notes) == [told] * bool(sign)
    line = section_of(board).tables[0].lines[0]
    assert (line.cells[0].text, line.marked) == (f"token_choice {sign}".rstrip(), bool(sign))


def test_only_groups_of_its_own_training_count_of_a_row(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    of_others = {
        "group=8": {"sensitivity_points": 5.0},
        "weights=ema group=image": {"sensitivity_points": 5.0},
    }
    path = write_run("token_choice", 0, 0.7)
    evaluate(path, {"batches": of_others})
    assert sensitivity_of(boards_of(results)[0].rows[0]) is None
    own = {"group=image": {"sensitivity_points": 0.0}, "group=image seed=1": {"sensitivity_points": 0.02}}
    evaluate(path, {"batches": {**of_others, **own}})
    assert sensitivity_of(boards_of(results)[0].rows[0]) == Sensitivity("group=image", 0.01)
