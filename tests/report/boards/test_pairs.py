import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from routerbench.report import Board
from routerbench.stats import smallest_detectable

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]

DENSE = (0.70, 0.71, 0.75)


def write_all(write_run: WriteRun, scores: dict[str, Sequence[float | None]]) -> None:
    for router, row in scores.items():
        for seed, top1 in enumerate(row):
            if top1 is not None:
                write_run(router, seed, top1)


def verdicts(board: Board) -> dict[str, str]:
    rows = board.rows
    return {
        f"{rows[it.row].label} vs {rows[it.reference].label}": it.verdict if it.tested else "not tested"
        for it in board.pairs.pairs
    }


def ranks(board: Board) -> dict[str, tuple[int, int]]:
    return {row.label: places for row, places in zip(board.rows, board.pairs.ranks, strict=True)}


def test_one_pair_by_hand(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_all(write_run, {"dense": DENSE, "soft": (0.80, 0.82, 0.84)})
    (board,) = boards_of(results)
    (pair,) = board.pairs.pairs
    # Differences 0.10, 0.11, 0.09: t = 0.10 root 3 / 0.01; 2 degrees of freedom: p = 1 - t / root(2 + t^2).
    t = 10 * math.sqrt(3)
    assert pair.p == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert (pair.verdict, pair.two_level) == ("better", None)
    assert board.pairs.ranks == [(2, 2), (1, 1)]
    assert board.pairs.detectable == pytest.approx(smallest_detectable(0.01, 3, 0.05, 0.8))


def test_p_is_corrected_for_all_pairs_of_the_board(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    generator = np.random.default_rng(0)
    rows = {name: generator.normal(0.7, 0.01, 5).tolist() for name in ("dense", "soft", "token_choice")}
    write_all(write_run, rows)
    (board,) = boards_of(results)
    p = {
        name: float(stats.ttest_rel(rows[name.split()[0]], rows[name.split()[2]])[1])
        for name in verdicts(board)
    }
    smallest, middle, largest = sorted(p.values())
    expected = {smallest: 3 * smallest, middle: max(3 * smallest, 2 * middle)}
    expected[largest] = max(expected[middle], largest)
    found = dict(zip(verdicts(board), (pair.p for pair in board.pairs.pairs), strict=True))
    assert found == pytest.approx({name: min(expected[own], 1.0) for name, own in p.items()})


def test_every_verdict(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    dense = np.array([0.70, 0.71, 0.75, 0.72, 0.73])
    jitter = np.array([0.0001, -0.0001, 0.0, 0.0001, -0.0001])
    rows = {
        "dense": dense,
        "soft": dense + 0.05 + jitter,
        "hash": dense - 0.05 + jitter,
        "random": dense + jitter,
        "noisy": dense + 200 * jitter,
    }
    write_all(write_run, {name: row.tolist() for name, row in rows.items()})
    write_run("once", 0, 0.9)
    (board,) = boards_of(results)
    assert verdicts(board) == {
        "hash vs dense": "worse",
        "random vs dense": "equivalent",
        "once vs dense": "not tested",
        "soft vs dense": "better",
        "noisy vs dense": "undecided",
    }
    # soft before dense before hash, thus before it; nothing more is known of the other three.
    assert ranks(board) == {
        "dense": (2, 5),
        "hash": (3, 6),
        "random": (1, 6),
        "once": (1, 6),
        "soft": (1, 4),
        "noisy": (1, 6),
    }
    assert (board.pairs.num_tested, board.pairs.usual_n) == (4, 5)


def test_rows_without_scores_take_no_place(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_all(write_run, {"dense": DENSE, "soft": (0.80, 0.82, 0.84)})
    write_run("another", 0, None, "diverged")
    (board,) = boards_of(results)
    assert ranks(board) == {"dense": (2, 2), "soft": (1, 1), "another": (1, 3)}


def test_pairs_are_taken_over_common_seeds(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_all(write_run, {"dense": (0.70, None, 0.75, 0.1), "soft": (0.80, 0.801, 0.84)})
    (pair,) = boards_of(results)[0].pairs.pairs
    expected = stats.ttest_rel([0.80, 0.84], [0.70, 0.75])[1]
    assert (pair.difference.n, pair.p) == (2, pytest.approx(float(expected)))


def test_one_seed_decides_nothing(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_all(write_run, {"dense": (0.5,), "soft": (0.9,), "hash": (None, 0.2)})
    (board,) = boards_of(results)
    assert set(verdicts(board).values()) == {"not tested"}
    assert board.pairs.ranks == [(1, 3)] * 3
    assert math.isnan(board.pairs.detectable)
    assert (board.pairs.num_tested, board.pairs.usual_n) == (0, 0)


def test_the_detectable_difference_stands_on_all_tested_pairs(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    # Against dense deviations of 0.01 and 0.03; their root mean square is root(5e-4).
    dense = (0.70, 0.71, 0.75)
    write_all(
        write_run, {"dense": dense, "soft": (0.80, 0.82, 0.84), "hash": (0.70, 0.74, 0.81), "once": (0.5,)}
    )
    (board,) = boards_of(results)
    assert board.pairs.detectable == pytest.approx(smallest_detectable(math.sqrt(5e-4), 3, 0.025, 0.8))
