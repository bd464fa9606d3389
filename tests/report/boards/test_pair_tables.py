from collections.abc import Callable
from pathlib import Path

from routerbench.report import Board
from routerbench.report.boards.pair_tables import pairs_table

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]

# Against dense of the same backbone, in ImageNet 10-shot: 18 and 38 pairs of the table.
SOFT, TOKEN_CHOICE = "+7.62 (+1.50 to +14.10)", "+4.89 (-4.50 to +12.90)"


def texts(board: Board) -> list[list[str]]:
    return [[cell.text for cell in line.cells] for line in pairs_table(board).lines]


def write_three(write_run: WriteRun) -> None:
    for seed, dense in enumerate((0.70, 0.71, 0.75)):
        write_run("dense", seed, dense)
        write_run("soft", seed, dense + (0.10, 0.11, 0.09)[seed])
        write_run("token_choice", seed, dense + (0.0001, 0.0, -0.0001)[seed])


def test_the_whole_table(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_three(write_run)
    write_run("once", 0, 0.8)
    (board,) = boards_of(results)
    table = pairs_table(board)
    assert [column.header for column in table.columns] == [
        "pair",
        "difference, points",
        "p (Holm)",
        "verdict",
        "seeds",
        "published, points",
    ]
    # p of soft minus dense is 0.0033 (t = 17.3), three tested pairs of which two are as small.
    assert texts(board) == [
        ["soft vs dense", "+10.00 ± 2.48", "0.010", "better", "3", SOFT],
        ["once vs dense", "+10.00", "-", "not tested", "1", "-"],
        ["token_choice vs dense", "+0.00 ± 0.02", "1.000", "equivalent within 0.3", "3", TOKEN_CHOICE],
        ["soft vs token_choice", "+10.00 ± 2.47", "0.010", "better", "3", "-"],
        ["once vs token_choice", "+9.99", "-", "not tested", "1", "-"],
    ]
    assert table.num_references == 3
    assert table.caption == (
        "Each row minus its dense twin, then minus token_choice: "
        "3 pairs tested, alpha 0.05, delta 0.3 points."
    )
    (note,) = table.notes
    assert note.startswith("With 3 seeds a difference below ")
    assert note.endswith(" points would hardly be seen (power 0.8, 3 pairs)")


def test_the_caption_says_why_an_interval_without_0_decides_nothing(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    # Differences 1, 2, 3 and 2 points: mean 2, deviation 0.816, t = 4.90, p = 0.016 alone, times 5 is 0.08.
    for seed, difference in enumerate((0.01, 0.02, 0.03, 0.02)):
        write_run("dense", seed, 0.7)
        write_run("soft", seed, 0.7 + difference)
        for number in range(4):
            write_run(f"other{number}", seed, 0.7 + 0.05 * (-1) ** seed)
    (board,) = boards_of(results)
    assert {pair.verdict for pair in board.pairs.pairs} == {"undecided"}
    assert pairs_table(board).caption.endswith(
        "Where ± excludes 0 and the verdict is undecided, the pair would pass alone, but among 5 pairs "
        "such a difference is too likely by chance."
    )


def test_one_seed(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("dense", 0, 0.7)
    write_run("soft", 0, 0.8)
    (board,) = boards_of(results)
    assert texts(board) == [["soft vs dense", "+10.00", "-", "not tested", "1", SOFT]]
    assert pairs_table(board).notes == ["One seed: no interval and no test, nothing can be decided"]


def test_no_common_seed(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("dense", 0, 0.7)
    write_run("soft", 1, 0.8)
    (board,) = boards_of(results)
    assert texts(board) == [["soft vs dense", "-", "-", "not tested", "0", SOFT]]
    assert pairs_table(board).notes == ["No common seeds: no difference and no test, nothing can be decided"]


def test_nothing_to_compare(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.7)
    (board,) = boards_of(results)
    table = pairs_table(board)
    assert (table.lines, table.caption, table.notes) == (
        [],
        "No two rows to compare: 0 pairs tested, alpha 0.05, delta 0.3 points.",
        [],
    )
