"""Boards whose rows compare something else than routers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from routerbench.report import Board, read_runs
from routerbench.report.boards.cells import checked_by

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]
CELL = "8 experts · capacity factor 1 · group image · 8 epochs"


def labels(boards: list[Board]) -> dict[str, list[str]]:
    return {board.title: [row.label for row in board.rows] for board in boards}


def test_placements_of_each_router(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("dense", 0, 0.5)
    for router, top1 in (("soft", 0.7), ("token_choice", 0.6)):
        write_run(router, 0, top1, placement="last_2")
        write_run(router, 0, top1 + 0.1, placement=[3, 5])
    assert labels(boards_of(results, by=["placement"])) == {
        f"landcover32 · pocket_vit · soft · {CELL}": ["dense", "placement=[3, 5]", "placement=last_2"],
        f"landcover32 · pocket_vit · token_choice · {CELL}": [
            "dense",
            "placement=[3, 5]",
            "placement=last_2",
        ],
    }


def test_models_stand_beside_their_twins(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    for name, width, top1 in (("small", 64, 0.6), ("large", 128, 0.7), ("large", 192, 0.8)):
        model = {"name": name, "width": width}
        write_run("dense", 0, top1, model=model)
        write_run("soft", 0, top1 + 0.1, model=model)
    (board,) = boards_of(results, by=["model"])
    assert board.title == f"landcover32 · soft · placement last_2 · {CELL}"
    assert [row.label for row in board.rows] == [
        "dense large width=192",
        "dense large width=128",
        "dense small",
        "large width=192",
        "large width=128",
        "small",
    ]


def test_several_at_once(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("dense", 0, 0.5)
    write_run("soft", 0, 0.7)
    write_run("expert_choice", 0, 0.8, settings={"noise": 1.0}, placement="every_2")
    (board,) = boards_of(results, by=["router", "placement"])
    assert [row.label for row in board.rows] == [
        "dense",
        "expert_choice placement=every_2",
        "soft placement=last_2",
    ]


def test_one_setting_of_a_router(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    for top_k, seed in ((1, 0), (2, 0), (2, 1)):
        write_run("token_choice", seed, 0.5, settings={"top_k": top_k})
    write_run("soft", 0, 0.6)
    assert labels(boards_of(results, by=["router.top_k"])) == {
        f"landcover32 · pocket_vit · soft · placement last_2 · {CELL}": ["router.top_k=null"],
        f"landcover32 · pocket_vit · token_choice · placement last_2 · {CELL}": [
            "router.top_k=1",
            "router.top_k=2",
        ],
    }


def test_a_group_that_does_not_differ_is_called_by_its_name(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("dense", 0, 0.5)
    write_run("soft", 0, 0.7)
    (board,) = boards_of(results, by=["data"])
    assert [row.label for row in board.rows] == ["dense landcover32", "landcover32"]


def test_what_is_no_setting_is_refused(results: Path, write_run: WriteRun) -> None:
    write_run("soft", 0, 0.6)
    for by in ("seed", "routers", "router.nam"):
        message = (
            f"--by={by} is no setting of these runs: give one of augment, batch_size, capacity_factor, data, "
            "epochs, eval_every, group, model, num_experts, optim, placement, precision, router"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            checked_by([by], read_runs(results).runs)


def test_what_is_no_accuracy_is_refused(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.6)
    message = "--metric=test/loss is no accuracy of these runs: they have test/balanced, test/top1, test/top5"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        boards_of(results, metric="test/loss")
    (board,) = boards_of(results, metric="test/balanced")
    assert (board.rows[0].score.mean, board.metric.label) == (0.59, "test/balanced %")
