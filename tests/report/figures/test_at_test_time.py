"""Accuracy against executed FLOPs, from records written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from routerbench.figures.picture import Picture
from routerbench.figures.svg import svg
from routerbench.report import Board
from routerbench.report.figures import at_test_time
from routerbench.report.figures.at_test_time import accuracy_against_flops

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
Boards = Callable[..., list[Board]]

MODES = {
    "capacity_factor=0.5": (0.25, 5e6),
    "trained": (0.5, 8e6),
    "dropless=true": (0.625, 10e6),
    "capacity_factor=0.5 batch_priority=true": (0.375, 5e6),
    "capacity_factor=0.5 top_k=2": (0.1, 6e6),
    "something else": (0.1, 6e6),
}
STUDY = {
    "capacity": {
        name: {"top1": top1, "executed_flops_per_image": flops} for name, (top1, flops) in MODES.items()
    }
}


def drawn(figure: Figure) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """Line, marker and points of what is drawn, but for single points of a line with a mark of its own."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("_", "|", "None")]
    return [
        (
            str(line.get_linestyle()),
            str(line.get_marker()),
            [(float(x), float(y)) for x, y in zip(*map(np.asarray, line.get_data()), strict=True)],
        )
        for line in lines
    ]


def picture_of(results: Path, boards_of: Boards) -> Picture:
    picture = accuracy_against_flops(boards_of(results)[0])
    assert picture is not None
    return picture


def test_each_priority_is_a_line_from_the_cheapest_mode_with_dense_beside(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    write_run("dense", 0, 0.75)
    evaluate(write_run("token_choice", 0, 0.5), STUDY)
    picture = picture_of(results, boards_of)
    assert drawn(picture.figure) == [
        ("-", "o", [(5, 25), (8, 50), (10, 62.5)]),
        ("--", "o", [(5, 37.5)]),
        ("None", "*", [(10, 62.5)]),
        ("None", "o", [(8, 50)]),
        ("None", "d", [(40, 75)]),
    ]
    assert picture.figure.axes[0].get_xlabel() == "executed FLOPs per image, MFLOPs"
    texts = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert texts == ["token_choice", "dense", "with batch priority", "without", "dropless", "as trained"]


def test_a_row_that_was_trained_with_priority_is_dashed(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    evaluate(write_run("token_choice", 0, 0.5, settings={"batch_priority": True}), STUDY)
    line, *_ = drawn(picture_of(results, boards_of).figure)
    assert line == ("--", "o", [(5, 25), (8, 50), (10, 62.5)])


def test_rows_that_have_no_room_are_said(
    results: Path,
    write_run: WriteRun,
    evaluate: Evaluate,
    boards_of: Boards,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(at_test_time, "MAX_ROWS", 1)
    for router in ("token_choice", "expert_choice"):
        evaluate(write_run(router, 0, 0.5), STUDY)
    assert picture_of(results, boards_of).description.endswith("The last 1 rows are not drawn.")


@pytest.mark.parametrize(
    "study",
    [
        {},
        {"capacity": {"trained": STUDY["capacity"]["trained"]}},
        {"capacity": {"trained": {"top1": 0.5}, "dropless=true": {"top1": 0.5}}},
    ],
)
def test_without_two_modes_there_is_no_picture(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards, study: dict[str, Any]
) -> None:
    evaluate(write_run("token_choice", 0, 0.5), study)
    assert accuracy_against_flops(boards_of(results)[0]) is None


@pytest.mark.parametrize("name", ["_", "$x$ <b>", "{{ x }}", "a" * 300])
def test_any_name_can_be_drawn(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards, name: str
) -> None:
    evaluate(write_run(name, 0, 0.5), STUDY)
    assert svg(picture_of(results, boards_of), "picture").startswith("<svg")
