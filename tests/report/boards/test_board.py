import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from routerbench.report import Board
from routerbench.report.boards.board import marks
from routerbench.report.boards.board_tables import section_of
from routerbench.stats import Estimate

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]


def minus_dense(board: Board, place: int) -> Estimate:
    pair = board.against_dense(place)
    assert pair is not None
    return pair.difference


def labels(board: Board) -> list[str]:
    return [row.label for row in board.rows]


def test_two_routers_and_three_seeds_by_hand(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    for seed, (dense, soft) in enumerate([(0.70, 0.80), (0.71, 0.82), (0.75, 0.84)]):
        write_run("dense", seed, dense)
        write_run("soft", seed, soft)
    (board,) = boards_of(results)
    dense, soft = board.rows
    root = 4.302653 / math.sqrt(3)  # t(0.975, 2 degrees of freedom) over the root of n
    # Deviations from the mean: -0.02, 0, 0.02.
    assert (soft.score.mean, soft.score.low) == pytest.approx((0.82, 0.82 - 0.02 * root), abs=1e-7)
    assert (soft.score.high, soft.score.n) == pytest.approx((0.82 + 0.02 * root, 3), abs=1e-7)
    # -0.02, -0.01, 0.03: squares sum to 14e-4, over n - 1 = 2.
    assert dense.score.high == pytest.approx(0.72 + math.sqrt(7e-4) * root, abs=1e-7)
    # Differences by seed 0.10, 0.11, 0.09: narrower than either side, as the seeds move both.
    assert minus_dense(board, 1).mean == pytest.approx(0.10)
    assert minus_dense(board, 1).high == pytest.approx(0.10 + 0.01 * root, abs=1e-7)
    assert (minus_dense(board, 1).n, board.against_dense(0)) == (3, None)
    assert soft.balanced == pytest.approx(0.81)
    assert (soft.done, soft.failed, soft.diverged, soft.oom) == (3, 0, 0, 0)
    assert (soft.cost.params_total, soft.cost.images_per_second) == (4_600_000, 1310.0)
    assert (soft.dropped_fraction, math.isnan(dense.dropped_fraction)) == (0.125, True)
    assert board.notes == []


def test_title_names_the_cell(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.8, capacity_factor=1.5)
    write_run("soft", 0, 0.8, placement=[3, 5], num_experts=16, group=8)
    write_run("dense", 0, 0.7, epochs=90)
    prefix = "landcover32 · pocket_vit · "
    assert [board.title.removeprefix(prefix) for board in boards_of(results)] == [
        "blocks 3, 5 · 16 experts · capacity factor 1 · group of 8 images · 8 epochs",
        "placement last_2 · 8 experts · capacity factor 1.5 · group image · 8 epochs",
        "dense only · 90 epochs",
    ]
    assert {board.subtitle for board in boards_of(results)} == {
        "test/top1, evaluation at train capacity, raw weights"
    }


def test_a_board_says_whether_the_average_of_the_weights_was_evaluated(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    path = write_run("soft", 0, 0.8)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"evaluation": {"weights": "ema"}}))
    (board,) = boards_of(results)
    assert board.subtitle == "test/top1, evaluation at train capacity, running average of the weights"


def test_title_says_what_training_started_from(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.8, model={"name": "pocket_vit", "weights": "results/runs/x"})
    write_run("soft", 1, 0.7, model={"name": "pocket_vit", "weights": None})
    titles = [board.title for board in boards_of(results)]
    cell = "placement last_2 · 8 experts · capacity factor 1 · group image · 8 epochs"
    assert sorted(titles) == [
        f"landcover32 · pocket_vit · from results/runs/x · {cell}",
        f"landcover32 · pocket_vit · {cell}",
    ]


def test_a_row_says_how_it_is_evaluated_when_not_as_it_is_trained(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    plain = {"capacity_factor_eval": None, "top_k_eval": None, "dropless": False}
    write_run("token_choice", 0, 0.8, settings={**plain, "capacity_factor_eval": 4.0})
    write_run("expert_choice", 0, 0.7, settings={"capacity_factor_eval": None})
    write_run("hash", 0, 0.6, settings={"capacity_factor_eval": None, "dropless": True})
    (board,) = boards_of(results)
    assert labels(board) == ["hash dropless=true", "token_choice capacity_factor_eval=4", "expert_choice"]
    assert (
        board.subtitle == "test/top1, evaluation at train capacity unless a row says otherwise, raw weights"
    )


def test_boards_of_one_title_name_what_differs(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.8, batch_size=64)
    write_run("soft", 0, 0.8, batch_size=128, augment={"flip": False})
    assert [board.subtitle for board in boards_of(results)] == [
        "augment.flip=false · batch_size=128 · test/top1, evaluation at train capacity, raw weights",
        "augment.flip=true · batch_size=64 · test/top1, evaluation at train capacity, raw weights",
    ]


def test_fewer_experts_come_first(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    for num_experts in (16, 8, 32):
        write_run("soft", 0, 0.8, num_experts=num_experts)
    assert [board.settings["num_experts"] for board in boards_of(results)] == [8, 16, 32]


def test_dense_joins_every_cell_equal_to_it_but_for_the_moe(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("dense", 0, 0.7)
    write_run("dense", 0, 0.6, batch_size=128)
    write_run("soft", 0, 0.8)
    write_run("soft", 0, 0.8, num_experts=16, placement="every_2", group=4)
    write_run("soft", 0, 0.8, precision="bf16")
    boards = {tuple(labels(board)): board for board in boards_of(results)}
    assert [labels(board) for board in boards_of(results)] == [
        ["dense", "soft"],  # every_2
        ["soft"],  # bf16, without a twin
        ["dense", "soft"],  # last_2
        ["dense"],  # another batch size: a board of its own
    ]
    assert boards[("dense",)].rows[0].score.mean == 0.6
    assert boards[("soft",)].against_dense(0) is None


def test_dense_joins_cells_of_any_experts(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    experts = {"expert_init": "shared", "expert_mlp_ratio": 2.0, "expert_dropout": 0.1, "extra_skip": True}
    optim = {"lr": 0.001, "weight_decay": 0.05, "warmup_epochs": 1}
    write_run("dense", 0, 0.7, **dict.fromkeys(experts), optim={**optim, "expert_weight_decay": None})
    write_run("soft", 0, 0.8, **experts, optim={**optim, "expert_weight_decay": 0.3})
    (board,) = boards_of(results)
    assert [row.label for row in board.rows] == ["dense", "soft"]


def test_order_of_rows(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    scores = {"soft": 0.8, "random": 0.9, "expert_choice": 0.85, "dense": 0.1, "hash": 0.2}
    for router, top1 in scores.items():
        write_run(router, 0, top1)
    write_run("another", 0, None, "failed")
    (board,) = boards_of(results)
    assert labels(board) == ["dense", "hash", "random", "expert_choice", "soft", "another"]


def test_label_shows_the_settings_that_are_not_those_of_the_file(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("token_choice", 0, 0.8, settings={"top_k": 1, "noise_std": 1.0})
    write_run("token_choice", 0, 0.7, settings={"top_k": 2, "noise_std": 1.0})
    write_run("token_choice", 0, 0.6, settings={"top_k": 2, "noise_std": 1.0, "batch_priority": True})
    write_run("soft", 0, 0.5, settings={"slots_per_expert": 4, "noise_std": 0})
    (board,) = boards_of(results)
    assert labels(board) == [
        "token_choice",
        "token_choice top_k=2",
        "token_choice batch_priority=true top_k=2",
        "soft slots_per_expert=4",
    ]


def test_runs_that_did_not_finish_are_counted_and_marked(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("soft", 0, 0.8)
    for seed, status in enumerate(["diverged", "failed", "oom", "oom"], start=1):
        write_run("soft", seed, None, status)
    write_run("hash", 0, 0.7)
    (board,) = boards_of(results)
    soft = board.rows[1]
    assert (soft.done, soft.failed, soft.oom, soft.diverged, soft.score.mean) == (1, 3, 2, 1, 0.8)
    assert [marks(place, board) for place in range(2)] == ["", "†"]
    assert board.notes == [
        "† not every run of this row finished: its numbers stand for those that did",
        "Failed runs that were out of memory: soft 2",
    ]


def test_costs_are_means_over_the_runs_that_finished_but_for_the_largest_peak(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    speeds_and_peaks = [
        ("done", 100.0, 0.5),
        ("done", 400.0, 2.0),
        ("done", 100.0, 1.0),
        ("failed", 9e9, 9e9),
    ]
    for seed, (status, speed, peak) in enumerate(speeds_and_peaks):
        path = write_run("soft", seed, 0.8, status)
        record = json.loads(path.read_text())
        record["cost"] |= {"images_per_second": speed, "peak_memory_gib": peak}
        path.write_text(json.dumps(record))
    (board,) = boards_of(results)
    assert (board.rows[0].cost.images_per_second, board.rows[0].cost.peak_memory_gib) == (200.0, 2.0)


def test_all_runs_failed(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, None, "failed")
    write_run("dense", 0, None, "diverged")
    (board,) = boards_of(results)
    assert labels(board) == ["dense", "soft"]
    assert [(row.done, row.failed, row.diverged) for row in board.rows] == [(0, 0, 1), (0, 1, 0)]
    assert all(math.isnan(row.score.mean) and math.isnan(row.cost.flops_per_image) for row in board.rows)


def test_one_seed_has_a_mean_and_no_interval(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("dense", 0, 0.5)
    write_run("soft", 0, 0.75)
    (board,) = boards_of(results)
    soft = board.rows[1]
    assert (soft.score.mean, minus_dense(board, 1).mean, minus_dense(board, 1).n) == (0.75, 0.25, 1)
    assert math.isnan(soft.score.low)
    assert math.isnan(minus_dense(board, 1).high)


def test_seeds_that_dense_lacks_are_marked(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("dense", 0, 0.5)
    write_run("soft", 0, 0.75)
    write_run("soft", 1, 0.25)
    (board,) = boards_of(results)
    assert (board.rows[1].score.mean, minus_dense(board, 1).mean) == (0.5, 0.25)
    assert [marks(place, board) for place in range(len(board.rows))] == ["", "§"]
    assert board.notes == [
        "§ dense lacks some seeds of this row: minus dense is taken over those that both finished"
    ]


def test_rows_of_mixed_origin_are_marked(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.8)
    write_run("soft", 1, 0.8, provenance={"commit": None, "versions": {"torch": "2.6.0", "timm": "1.0.9"}})
    write_run("hash", 0, 0.7, provenance={"device": "NVIDIA H100"})
    write_run("hash", 1, None, "failed", provenance={"device": "NVIDIA A100"})
    (board,) = boards_of(results)
    # The failed run gave no number that could be mixed in.
    assert [marks(place, board) for place in range(len(board.rows))] == ["†", "‡"]
    assert board.notes == [
        "† not every run of this row finished: its numbers stand for those that did",
        "‡ the runs of this row differ in commit, torch",
        "The runs of this board differ in commit: 0123456789, unknown",
        "The runs of this board differ in device: NVIDIA H100, cpu",
        "The runs of this board differ in torch: 2.5.0, 2.6.0",
    ]


def test_a_copied_run_is_no_second_seed(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.9, run_id="a copy", provenance={"finished": "2026-01-02T00:00:00"})
    write_run("soft", 0, 0.5, run_id="the run")
    (board,) = boards_of(results)
    assert (board.rows[0].score.n, board.rows[0].score.mean) == (1, 0.9)
    assert board.notes == ["Same configuration and seed twice, the finished or else the later one counts: 1"]


def test_a_finished_run_counts_and_not_a_later_failed_copy(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("soft", 0, 0.5)
    write_run("soft", 0, None, "failed", provenance={"finished": "2026-01-02T00:00:00"})
    (board,) = boards_of(results)
    assert (board.rows[0].done, board.rows[0].failed, board.rows[0].scores) == (1, 0, {0: 0.5})


def test_costs_of_evaluation_stand_in_brackets_where_they_differ(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    path = write_run("hash", 0, 0.6, settings={"dropless": True})
    record = json.loads(path.read_text())
    record["cost"] |= {"slots_per_token_eval": 8.0, "flops_per_image_eval": 93_000_000}
    path.write_text(json.dumps(record))
    (board,) = boards_of(results)
    (table, *_) = section_of(board).tables
    cells = {
        column.header: cell.text for column, cell in zip(table.columns, table.lines[0].cells, strict=True)
    }
    slots, flops = cells["slots/token"], cells["MFLOPs/image"]
    assert (slots, flops) == ("1.00 (8.00)", "41.2 (93.0)")
