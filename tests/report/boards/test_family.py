from collections.abc import Callable
from pathlib import Path

from routerbench.report import Board

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]


def compared(board: Board) -> list[str]:
    labels = [row.label for row in board.rows]
    return [f"{labels[pair.row]} - {labels[pair.reference]}" for pair in board.pairs.pairs]


def test_each_row_against_dense_and_then_against_token_choice(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    for router, top1 in {"dense": 0.7, "hash": 0.6, "soft": 0.8, "token_choice": 0.75}.items():
        write_run(router, 0, top1)
    write_run("another", 0, None, "failed")
    (board,) = boards_of(results)
    assert compared(board) == [
        "hash - dense",
        "soft - dense",
        "token_choice - dense",
        "hash - token_choice",
        "soft - token_choice",
    ]


def test_the_second_reference_is_token_choice_as_its_file_has_it(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    for top_k, top1 in ((2, 0.8), (1, 0.7), (4, 0.6)):
        write_run("token_choice", 0, top1, settings={"top_k": top_k})
    write_run("soft", 0, 0.5)
    (board,) = boards_of(results)
    assert compared(board) == [
        "token_choice top_k=2 - token_choice",
        "token_choice top_k=4 - token_choice",
        "soft - token_choice",
    ]


def test_without_dense_and_the_usual_token_choice_the_first_row_is_the_reference(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("token_choice", 0, 0.8, settings={"top_k": 2})
    write_run("soft", 0, 0.5)
    (board,) = boards_of(results)
    assert compared(board) == ["token_choice top_k=2 - soft"]


def test_each_model_has_its_own_references(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    for name, top1 in (("a", 0.6), ("b", 0.7)):
        for router in ("dense", "token_choice", "soft"):
            write_run(router, 0, top1, model={"name": name})
    (board,) = boards_of(results, ("router", "model"))
    assert sorted(compared(board)) == [
        "soft a - dense a",
        "soft a - token_choice a",
        "soft b - dense b",
        "soft b - token_choice b",
        "token_choice a - dense a",
        "token_choice b - dense b",
    ]


def test_where_routers_are_not_compared_the_first_label_is_the_reference(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    for num_experts, top1 in ((16, 0.9), (8, 0.7), (32, 0.8)):
        write_run("soft", 0, top1, num_experts=num_experts)
    write_run("dense", 0, 0.5)
    (board,) = boards_of(results, ("num_experts",))
    # 8 before 16, though it has the lowest score.
    assert compared(board) == [
        "num_experts=16 - dense",
        "num_experts=32 - dense",
        "num_experts=8 - dense",
        "num_experts=16 - num_experts=8",
        "num_experts=32 - num_experts=8",
    ]


def test_a_dense_twin_without_score_is_shown_as_one(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("dense", 0, None, "diverged")
    write_run("soft", 0, 0.8)
    (board,) = boards_of(results)
    assert compared(board) == ["soft - dense"]
    assert (board.pairs.pairs[0].difference.n, board.pairs.pairs[0].tested) == (0, False)
