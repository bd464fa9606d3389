from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd

from routerbench.report import Board
from routerbench.report.boards.sheet import csv

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]


def test_full_precision_and_every_row_of_every_board(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    thirds = [1 / 3, 2 / 3 - 1e-16]
    for seed, top1 in enumerate(thirds):
        write_run("soft", seed, top1, settings={"slots_per_expert": 4})
    write_run("dense", 0, 0.1)
    write_run("hash", 0, None, "oom", num_experts=16)
    sheet = pd.read_csv(StringIO(csv(boards_of(results))))
    rows = sheet[["board", "router", "done", "failed", "oom", "config.num_experts"]].fillna(0)
    assert rows.to_numpy().tolist() == [
        [1, "dense", 1, 0, 0, 0],
        [1, "soft slots_per_expert=4", 2, 0, 0, 8],
        [2, "dense", 1, 0, 0, 0],
        [2, "hash", 0, 1, 1, 16],
    ]
    soft = sheet.loc[1]
    assert soft["score_mean"] == sum(thirds) / 2
    assert (soft["minus_dense_mean"], soft["minus_dense_n"]) == (thirds[0] - 0.1, 1)
    assert (soft["config.router.slots_per_expert"], soft["flops_per_image"]) == (4, 41.25e6)
    assert sheet["provenance.torch"].tolist()[:2] == ["2.5.0", "2.5.0"]


def test_names_come_back_as_they_were(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    name = 'a "name", with\nlines | <b>'
    write_run(name, 0, 0.8)
    assert pd.read_csv(StringIO(csv(boards_of(results))))["router"].tolist() == [name]


def test_settings_show_as_they_are_typed(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.8, placement=[3, 5], capacity_factor=1.5)
    sheet = pd.read_csv(StringIO(csv(boards_of(results))), dtype=str)
    names = ["config.placement", "config.capacity_factor", "config.num_experts", "config.augment.flip"]
    assert sheet.loc[0, names].tolist() == ["[3, 5]", "1.5", "8", "true"]
