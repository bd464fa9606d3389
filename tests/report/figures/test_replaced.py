"""What is lost without the trained routers, from records written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routerbench.figures.svg import svg
from routerbench.report import Board
from routerbench.report.figures import replaced
from routerbench.report.figures.replaced import lost_without_routers

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
Boards = Callable[..., list[Board]]


def lost(**points: float) -> dict[str, Any]:
    return {"routers": {name: {"top1_lost_points": value} for name, value in points.items()}}


def test_each_row_and_replacement_has_its_mean_and_its_seeds(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    for seed in range(2):
        evaluate(write_run("token_choice", seed, 0.7), lost(random=12.0 + 2 * seed, hash=8.0))
    evaluate(write_run("soft", 0, 0.6), lost(random=1.0))
    evaluate(write_run("expert_choice", 0, 0.5), {"routers": {"random blocks.5": {"top1_lost_points": 1.0}}})
    picture = lost_without_routers(boards_of(results)[0])
    assert picture is not None
    (axes,) = picture.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["random", "hash"]
    points = {
        str(line.get_marker()): np.asarray(line.get_xdata(), float).tolist()
        for line in axes.lines
        if line.get_marker() in ("o", "s")
    }
    assert points == {"o": [8.0], "s": [1.0]}  # the last of each row
    dots = [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_marker() == "."]
    assert dots == [[12.0, 14.0], [8.0, 8.0], [1.0]]
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == ["token_choice", "soft"]


def test_what_has_no_room_is_said(
    results: Path,
    write_run: WriteRun,
    evaluate: Evaluate,
    boards_of: Boards,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replaced, "MAX_ROWS", 1)
    monkeypatch.setattr(replaced, "MAX_REPLACEMENTS", 1)
    for router in ("token_choice", "soft"):
        evaluate(write_run(router, 0, 0.7), lost(random=12.0, hash=8.0))
    picture = lost_without_routers(boards_of(results)[0])
    assert picture is not None
    assert picture.description.endswith(
        "The last 1 rows are not drawn. The last 1 replacements are not drawn."
    )


@pytest.mark.parametrize("name", ["_", "$x$ <b>", "a" * 300])
def test_any_name_can_be_drawn(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards, name: str
) -> None:
    evaluate(write_run(name, 0, 0.7), lost(**{name.split()[0]: 1.0}))
    picture = lost_without_routers(boards_of(results)[0])
    assert picture is not None
    assert svg(picture, "picture").startswith("<svg")


def test_without_replacements_there_is_no_picture(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("soft", 0, 0.7)
    assert lost_without_routers(boards_of(results)[0]) is None
