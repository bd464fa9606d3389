from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from routerbench.report import Board, null_check
from routerbench.report.boards import rule
from routerbench.report.null_check import check_null

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]

ROUTERS = ("dense", "hash", "token_choice", "expert_choice", "soft", "random")


def write_board(write_run: WriteRun, rows: int, seeds: int, of_row: float = 0.0, **config: object) -> None:
    generator = np.random.default_rng([rows, seeds])
    for place, router in enumerate(ROUTERS[:rows]):
        for seed in range(seeds):
            write_run(router, seed, 0.7 + of_row * place + generator.normal(0, 0.005), **config)


def cells(boards: list[Board]) -> list[list[str]]:
    (table,) = check_null(boards).section.tables
    return [[cell.text for cell in line.cells[1:]] for line in table.lines]


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("of_row", [0.0, 0.03])
def test_a_sound_rule_passes_whether_or_not_rows_differ(
    results: Path, write_run: WriteRun, boards_of: Boards, seeds: int, of_row: float
) -> None:
    write_board(write_run, 6, seeds, of_row)
    boards = boards_of(results)
    ((rows, of_seeds, pairs, share, _, alpha),) = cells(boards)
    assert (rows, of_seeds, pairs, alpha) == ("6", str(seeds), "9", "5")
    assert float(share) < 10  # of one sample of noise: see share_interval
    assert check_null(boards).exit_code == 0


def test_a_rule_without_correction_fails(
    results: Path, write_run: WriteRun, boards_of: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_board(write_run, 6, 5)
    boards = boards_of(results)
    monkeypatch.setattr(rule, "holm", lambda p: p)
    check = check_null(boards)
    assert check.exit_code == 1
    (table,) = check.section.tables
    assert [line.marked for line in table.lines] == [True]


def test_the_same_boards_give_the_same_answer(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_board(write_run, 5, 4)
    assert check_null(boards_of(results)) == check_null(boards_of(results))


@pytest.mark.parametrize(("rows", "seeds"), [(3, 5), (6, 2), (6, 1)])
def test_small_boards_are_named_and_not_judged(
    results: Path, write_run: WriteRun, boards_of: Boards, rows: int, seeds: int
) -> None:
    write_board(write_run, rows, seeds)
    check = check_null(boards_of(results))
    (table,) = check.section.tables
    assert [cell.text for cell in table.lines[0].cells[-3:]] == ["too small", "-", "-"]
    assert table.notes == [
        "Too small to check: boards with fewer than 4 rows or 3 seeds have too few permutations that differ"
    ]
    assert check.exit_code == 0


def test_several_boards_missing_seeds_and_rows_of_one_seed(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_board(write_run, 6, 4)
    write_board(write_run, 5, 5, num_experts=16, epochs=9)
    write_run("once", 0, 0.7)
    write_run("another", 0, None, "diverged")
    write_run("late", 3, 0.7)
    write_run("late", 9, 0.7)
    (table,) = check_null(boards_of(results)).section.tables
    assert len(table.lines) == 2
    assert "for all 2 boards at once" in table.caption
    assert table.notes[0].startswith("On any of the 2 boards: ")


def test_a_thousand_permutations_by_hand(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    # Four rows whose noise is alike: whatever the labels, all differences are 0 and nothing is claimed.
    for router in ROUTERS[:4]:
        for seed, top1 in enumerate((0.70, 0.71, 0.75)):
            write_run(router, seed, top1)
    # None of 1,000: the interval ends at 1 - 0.025^(1/1000) = 0.37 %.
    assert cells(boards_of(results)) == [["4", "3", "5", "0.0", "0.0 to 0.4", "5"]]
    assert null_check.TIMES == 1000


def test_the_interval_holds_for_all_boards_at_once(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    for epochs in range(4):
        for router in ROUTERS[:4]:
            for seed, top1 in enumerate((0.70, 0.71, 0.75)):
                write_run(router, seed, top1, epochs=epochs)
    # As above with a quarter of the error: 1 - (0.025 / 4)^(1/1000) = 0.51 %.
    assert [line[-2] for line in cells(boards_of(results))] == ["0.0 to 0.5"] * 4
