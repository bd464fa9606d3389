"""Accuracies of evaluations as the metric of a board."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerbench.report import Board

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
Boards = Callable[..., list[Board]]
DROPLESS = "eval/capacity/dropless=true/top1"
V2 = "eval/images/imagenet_v2/top1"


@pytest.fixture
def evaluated(write_run: WriteRun, evaluate: Evaluate) -> None:
    """Two routers and dense; soft was not evaluated."""
    path = write_run("token_choice", 0, 0.6)
    evaluate(path, {"capacity": {"dropless=true": {"top1": 0.75, "loss": 0.5, "points_to_dropless": 0.0}}})
    evaluate(path, {"images": {"imagenet_v2": {"top1": 0.25}}})
    write_run("soft", 0, 0.7)
    write_run("dense", 0, 0.5)


@pytest.mark.usefixtures("evaluated")
def test_a_board_at_another_test_time_mode(results: Path, boards_of: Boards) -> None:
    (board,) = boards_of(results, metric=DROPLESS)
    assert board.metric.label == "top1 % (dropless=true)"
    assert board.subtitle == f"{DROPLESS}, evaluation after training"
    # Dense has no slots, and one accuracy in all modes of them.
    assert {row.label: dict(row.scores) for row in board.rows} == {
        "dense": {0: 0.5},
        "token_choice": {0: 0.75},
        "soft": {},
    }
    pair = board.against_dense(1)
    assert pair is not None
    assert pair.difference.mean == 0.25


@pytest.mark.usefixtures("evaluated")
def test_of_other_images_dense_has_what_was_measured_of_it(results: Path, boards_of: Boards) -> None:
    (board,) = boards_of(results, metric=V2)
    assert [dict(row.scores) for row in board.rows] == [{}, {0: 0.25}, {}]


@pytest.mark.usefixtures("evaluated")
@pytest.mark.parametrize("name", ["eval/capacity/dropless/top1", "eval/capacity/dropless=true/loss"])
def test_what_was_not_found_is_refused_with_the_choices(results: Path, boards_of: Boards, name: str) -> None:
    choices = f"{DROPLESS}, {V2} (did you mean {DROPLESS}?)"
    message = f"--metric={name} is in no evaluation of these runs: they have {choices}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        boards_of(results, metric=name)


@pytest.mark.usefixtures("evaluated")
def test_the_choices_for_another_metric_have_evaluations_too(results: Path, boards_of: Boards) -> None:
    message = f"they have test/balanced, test/top1, test/top5, {DROPLESS}, {V2}"
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        boards_of(results, metric="test/loss")


def test_without_evaluations_it_is_refused_as_any(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("soft", 0, 0.7)
    message = (
        f"--metric={DROPLESS} is no accuracy of these runs: they have test/balanced, test/top1, test/top5"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        boards_of(results, metric=DROPLESS)
