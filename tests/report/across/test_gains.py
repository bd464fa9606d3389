import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from routerbench.report import Board
from routerbench.report.across.block import block_of
from routerbench.report.across.gains import across_sections
from routerbench.report.across.resampled import overall
from routerbench.report.tables.table import Table

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]
Filled = Callable[..., None]

DATA = ["a", "b", "c", "d", "e", "f", "g", "h"]


@pytest.fixture
def filled(write_run: WriteRun) -> Filled:
    """A function that writes a cell: a run for each score, the seeds counted from 0."""

    def fill(data: str, **scores: list[float | None]) -> None:
        for router, of_seeds in scores.items():
            for seed, top1 in enumerate(of_seeds):
                status = "failed" if top1 is None else "done"
                write_run(router, seed, top1, status=status, data={"name": data})

    return fill


def table_of(boards: list[Board]) -> Table:
    (section,) = across_sections(boards)
    return section.tables[0]


def texts(table: Table) -> dict[str, list[str]]:
    return {line.cells[0].text: [cell.text for cell in line.cells[1:]] for line in table.lines}


def test_two_cells_of_one_seed_by_hand(filled: Filled, results: Path, boards_of: Boards) -> None:
    # Gains of soft 0.10 and -0.02, of token_choice 0.05 and 0.01: of two numbers nothing is trimmed.
    filled("a", dense=[0.5], soft=[0.60], token_choice=[0.55])
    filled("b", dense=[0.7], soft=[0.68], token_choice=[0.71])
    table = table_of(boards_of(results))
    assert table.name == "Gain over dense in 2 cells"
    # Soft is 1st and 3rd, token_choice 2nd and 1st, dense 3rd and 2nd.
    assert texts(table) == {
        "dense": ["-", "-", "-", "0.00", "2.50", "-", "-"],
        "soft": ["+4.00", "+4.00", "0.50", "0.50", "2.00", "-", "-"],
        "token_choice": ["+3.00", "+3.00", "1.00", "-", "1.50", "-", "-"],
    }
    assert table.num_references == 1
    assert "2 cells are few for it: it is meant for 8 and more." in table.caption
    assert list(table.notes) == [
        "Critical differences of ranks are told from 8 cells on: here are 2",
        "Cells with one seed, which add nothing to the width of an interval: 2",
    ]


def test_intervals_are_those_of_all_that_can_be_drawn(
    filled: Filled, results: Path, boards_of: Boards
) -> None:
    # Two cells of two seeds: one of two is drawn in each, so the mean gain is one of four, each as likely.
    filled("a", dense=[0.5, 0.5], soft=[0.6, 0.7])
    filled("b", dense=[0.5, 0.5], soft=[0.5, 0.9])
    block = block_of(boards_of(results))
    assert block is not None
    _, soft = overall(block)
    assert soft.mean is not None
    drawn = [(0.1 + 0.0) / 2, (0.1 + 0.4) / 2, (0.2 + 0.0) / 2, (0.2 + 0.4) / 2]
    assert soft.mean.value == pytest.approx(np.mean(drawn))
    assert (soft.mean.low, soft.mean.high) == pytest.approx((min(drawn), max(drawn)))
    # In cell a soft is always better; in b one seed ties, so it wins the half of it, and one wins.
    assert soft.over_dense is not None
    assert soft.over_dense.value == pytest.approx((1 + 0.75) / 2)
    assert (soft.over_dense.low, soft.over_dense.high) == pytest.approx((0.75, 1))


def test_without_dense_the_mean_of_the_cell_is_what_gains_are_over(
    filled: Filled, results: Path, boards_of: Boards
) -> None:
    filled("a", soft=[0.6], hash=[0.4])
    filled("b", soft=[0.8], hash=[0.7], dense=[0.1])
    table = table_of(boards_of(results))
    assert table.name == "Gain over the mean of all rows in 2 cells"
    # 0.1 over the mean in a, 0.05 in b.
    assert texts(table)["soft"][:3] == ["+7.50", "+7.50", "-"]


def test_one_cell_no_cell_and_all_failed_are_no_section(
    filled: Filled, results: Path, boards_of: Boards
) -> None:
    assert across_sections([]) == []
    filled("a", dense=[0.5], soft=[0.6])
    assert across_sections(boards_of(results)) == []
    filled("b", dense=[None], soft=[None])
    filled("c", dense=[0.5])
    assert across_sections(boards_of(results)) == []


def test_cells_that_lack_a_row_are_left_out_and_named(
    filled: Filled, results: Path, boards_of: Boards
) -> None:
    for data in ("a", "b", "c"):
        filled(data, dense=[0.5, 0.5], soft=[0.6, 0.7], hash=[0.4, 0.4])
    filled("d", dense=[0.5, 0.5], soft=[0.6, 0.7])
    filled("e", dense=[0.5, None], soft=[None, 0.7], hash=[0.4, 0.4])
    table = table_of(boards_of(results))
    assert table.name == "Gain over dense in 3 cells"
    cell = "pocket_vit · placement last_2 · 8 experts · capacity factor 1 · group image · 8 epochs"
    assert list(table.notes[1:]) == [
        f"Left out, without a score of hash: d · {cell}",
        f"Left out, no seed that all have: e · {cell}",
    ]


def test_a_cell_that_gives_more_than_half_of_a_mean_gain_is_named(
    filled: Filled, results: Path, boards_of: Boards
) -> None:
    # Of hash's -0.13 cell b gives -0.06, less than half; of soft's 0.12 it gives 0.10.
    filled("a", dense=[0.5], soft=[0.51], hash=[0.47])
    filled("b", dense=[0.5], soft=[0.6], hash=[0.44])
    filled("c", dense=[0.5], soft=[0.51], hash=[0.46])
    cell = "pocket_vit · placement last_2 · 8 experts · capacity factor 1 · group image · 8 epochs"
    assert [note for note in table_of(boards_of(results)).notes if "alone" in note] == [
        f"b · {cell} alone gives more than half of the mean gain of soft"
    ]


def test_seeds_that_a_row_lacks_are_not_used(filled: Filled, results: Path, boards_of: Boards) -> None:
    filled("a", dense=[0.5, 0.5, 0.5], soft=[0.6, None, 0.8])
    filled("b", dense=[0.5, 0.5, 0.5], soft=[0.6, 0.6, 0.6])
    block = block_of(boards_of(results))
    assert block is not None
    assert block.scores[0].tolist() == [[0.5, 0.5], [0.6, 0.8]]
    assert (
        "Scores not used, as not every row of the cell has their seed: 1"
        in table_of(boards_of(results)).notes
    )


def test_rows_common_to_few_boards_alone_are_found(filled: Filled, results: Path, boards_of: Boards) -> None:
    # No board has just these two rows, but both boards have them.
    filled("a", soft=[0.6], hash=[0.4], random=[0.1])
    filled("b", soft=[0.6], hash=[0.4], token_choice=[0.1])
    block = block_of(boards_of(results))
    assert block is not None
    assert list(block.names) == ["hash", "soft"]


def test_cells_with_the_same_dense_runs_are_drawn_together(
    write_run: WriteRun, results: Path, boards_of: Boards
) -> None:
    for seed in range(3):
        write_run("dense", seed, 0.5 + seed / 10)
        for num_experts in (4, 8):
            write_run("soft", seed, 0.6, num_experts=num_experts)
    block = block_of(boards_of(results))
    assert block is not None
    assert block.shared[0] == block.shared[1]
    # Gains of both cells are 0.1, 0 and -0.1 by seed: drawn together the means of the cells are never unlike.
    _, soft = overall(block)
    assert soft.mean is not None
    assert (soft.mean.low, soft.mean.high) == pytest.approx((-0.1, 0.1))


def test_critical_difference_from_eight_cells_on(filled: Filled, results: Path, boards_of: Boards) -> None:
    for data in DATA:
        filled(data, dense=[0.5], soft=[0.7], hash=[0.4])
    # Ranks 2, 1, 3 in all eight: chi² = 12 * 8 / (3 * 4) * 2 = 16, p = exp(-8); 2.344 * sqrt(12 / 48) = 1.17.
    first, second, *_ = table_of(boards_of(results)).notes
    assert first.startswith("Friedman's test that all rank alike: p = 0.00034; critical difference")
    assert "(Nemenyi, 0.05): 1.17." in first
    assert second == "Not told apart by it: soft, dense; dense, hash"


def test_small_against_large_by_hand(write_run: WriteRun, results: Path, boards_of: Boards) -> None:
    # Orders: soft, token_choice, hash small; token_choice, soft, hash large: of three pairs one is turned.
    scores = {"small": (0.7, 0.6, 0.5), "large": (0.8, 0.9, 0.6)}
    for number, (scale, of_routers) in enumerate(scores.items(), 1):
        for router, top1 in zip(("soft", "token_choice", "hash"), of_routers, strict=True):
            path = write_run(router, 0, top1, model={"name": f"vit_{scale}_patch16_224"})
            record = json.loads(path.read_text())
            record["cost"]["flops_per_image"] = number
            path.write_text(json.dumps(record))
    (section,) = across_sections(boards_of(results))
    _, table = section.tables
    assert table.name.startswith("Small against large · landcover32 · vit at 2 scales · ")
    (line,) = table.lines
    assert [cell.text for cell in line.cells] == [
        "vit_small_patch16_224", "vit_large_patch16_224", "3", "1 and 1", "0.33",
    ]  # fmt: skip


def test_the_order_of_the_records_changes_nothing(
    filled: Filled, results: Path, boards_of: Boards, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for data in DATA[:3]:
        filled(data, **{router: rng.random(3).tolist() for router in ("dense", "soft", "token_choice")})
    first = across_sections(boards_of(results))
    moved = tmp_path / "moved"
    for number, path in enumerate(sorted(results.glob("runs/*"), reverse=True)):
        (moved / "runs" / f"{number:03d}").mkdir(parents=True)
        (moved / "runs" / f"{number:03d}" / "record.json").write_bytes((path / "record.json").read_bytes())
    assert across_sections(boards_of(moved)) == first


def test_many_sets_of_rows_are_no_burden(filled: Filled, results: Path, boards_of: Boards) -> None:
    for number, pair in enumerate(itertools.combinations(["dense", "hash", "random", "soft", "uniform"], 3)):
        filled(str(number), **{router: [0.5] for router in pair})
    block = block_of(boards_of(results))
    assert block is not None
    assert (len(block.names), len(block.cells)) == (2, 3)  # every two of the five stand on three boards


def test_each_row_is_compared_with_its_own_dense_twin(
    write_run: WriteRun, results: Path, boards_of: Boards
) -> None:
    # Rows differ in the number of epochs too: 0.6 - 0.5 after 1, 0.9 - 0.7 after 2, in both cells.
    for data in ("a", "b"):
        for epochs, dense, soft in ((1, 0.5, 0.6), (2, 0.7, 0.9)):
            write_run("dense", 0, dense, data={"name": data}, epochs=epochs)
            write_run("soft", 0, soft, data={"name": data}, epochs=epochs)
    table = table_of(boards_of(results, by=("router", "epochs")))
    assert {name: cells[0] for name, cells in texts(table).items()} == {
        "dense epochs=1": "-",
        "dense epochs=2": "-",
        "soft epochs=1": "+10.00",
        "soft epochs=2": "+20.00",
    }
