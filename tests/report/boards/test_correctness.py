from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from routerbench.report import Board
from routerbench.report.boards.pair_tables import pairs_table
from routerbench.stats import crossed_interval

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]
WriteCorrect = Callable[..., Path]


@pytest.fixture
def write_correct(write_run: WriteRun) -> WriteCorrect:
    """A function that writes a run with what it got right, and returns that file's path."""

    def write(router: str, seed: int, correct: np.ndarray, **config: object) -> Path:
        folder = write_run(router, seed, float(correct.mean()), **config).parent
        np.save(folder / "correct.npy", correct)
        return folder / "correct.npy"

    return write


def draw(seed: int, images: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).random(images) < 0.7


def two_level(board: Board) -> list[bool]:
    return [pair.two_level is not None for pair in board.pairs.pairs]


def test_interval_over_seeds_and_images(
    results: Path, write_correct: WriteCorrect, boards_of: Boards
) -> None:
    ours, theirs = [draw(seed) for seed in range(3)], [draw(10 + seed) for seed in range(3)]
    for seed in range(3):
        write_correct("soft", seed, ours[seed])
        write_correct("dense", seed, theirs[seed])
    (board,) = boards_of(results)
    (pair,) = board.pairs.pairs
    expected = crossed_interval(np.array(ours, dtype=float) - np.array(theirs), 0.95)
    assert pair.two_level == expected
    assert expected.mean == pytest.approx(pair.difference.mean)
    assert board.pairs.resolution == 1 / 50
    assert "over seeds and images, points" in [column.header for column in pairs_table(board).columns]


def test_all_runs_of_a_pair_must_tell(results: Path, write_correct: WriteCorrect, boards_of: Boards) -> None:
    for seed in range(2):
        write_correct("dense", seed, draw(seed))
        write_correct("soft", seed, draw(5 + seed))
    write_correct("hash", 0, draw(7))
    write_correct("hash", 1, draw(8)).unlink()
    (board,) = boards_of(results)
    assert [board.rows[pair.row].label for pair in board.pairs.pairs] == ["hash", "soft"]
    assert two_level(board) == [False, True]
    assert board.pairs.unreadable == []


def test_test_sets_must_be_the_same(results: Path, write_correct: WriteCorrect, boards_of: Boards) -> None:
    for seed in range(2):
        for router, images in (("dense", 50), ("soft", 51)):
            write_correct(router, seed, draw(seed, images))
    (board,) = boards_of(results)
    assert two_level(board) == [False]


def test_as_many_images_may_be_of_another_set(
    results: Path, write_correct: WriteCorrect, boards_of: Boards
) -> None:
    for seed in range(2):
        for name in ("one", "another"):
            write_correct("soft", seed, draw(seed), data={"name": name})
    (board,) = boards_of(results, ("data",))
    assert two_level(board) == [False]


def test_no_other_metric_has_one(results: Path, write_correct: WriteCorrect, boards_of: Boards) -> None:
    for seed in range(2):
        for router in ("dense", "soft"):
            write_correct(router, seed, draw(seed))
    (board,) = boards_of(results, metric="test/balanced")
    assert two_level(board) == [False]
    # No image counts there: the least by which two scores differ.
    scores = sorted({score for row in board.rows for score in row.scores.values()})
    assert board.pairs.resolution == pytest.approx(min(b - a for a, b in pairwise(scores)))


def test_one_seed_has_none(results: Path, write_correct: WriteCorrect, boards_of: Boards) -> None:
    write_correct("dense", 0, draw(0))
    write_correct("soft", 0, draw(1))
    (board,) = boards_of(results)
    assert two_level(board) == [False]


def header_of(length: int) -> bytes:
    text = f"{{'descr': '|b1', 'fortran_order': False, 'shape': ({length},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x93NUMPY",
        b"no array at all",
        header_of(50) + b"\x01" * 20,
        header_of(10**15) + b"\x01" * 50,
        header_of(50).replace(b"'|b1'", b"'|b1 ") + b"\x01" * 50,
        header_of(50).replace(b"{'des", b"(((((") + b"\x01" * 50,
        b"PK\x03\x04 half an archive",
    ],
    ids=["empty", "header", "text", "half", "huge", "quote", "brackets", "zip"],
)
def test_a_damaged_file_is_as_if_there_were_none_and_named(
    results: Path, write_correct: WriteCorrect, boards_of: Boards, damage: bytes
) -> None:
    for router, seed in (("dense", 0), ("dense", 1), ("soft", 0)):
        write_correct(router, seed, draw(seed))
    path = write_correct("soft", 1, draw(6))
    path.write_bytes(damage)
    (board,) = boards_of(results)
    assert two_level(board) == [False]
    note = f"Correctness per image that is damaged or of another score, and not used: {path.parent.name}"
    assert pairs_table(board).notes[-1] == note


@pytest.mark.parametrize(
    "correct",
    [
        np.ones(50),
        np.ones((5, 10), dtype=bool),
        ~draw(6),
        np.empty(0, dtype=bool),
        np.array([{}], dtype=object),
    ],
    ids=["floats", "matrix", "of another score", "no image", "pickle"],
)
def test_what_is_no_list_of_the_right_images_is_damaged(
    results: Path, write_correct: WriteCorrect, boards_of: Boards, correct: np.ndarray
) -> None:
    for router, seed in (("dense", 0), ("dense", 1), ("soft", 0)):
        write_correct(router, seed, draw(seed))
    path = write_correct("soft", 1, draw(6))
    np.save(path, correct, allow_pickle=True)
    (board,) = boards_of(results)
    assert two_level(board) == [False]
    assert board.pairs.unreadable == [path.parent.name]
