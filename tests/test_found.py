"""What a record tells of evaluations is counted on as far as it is numbers."""

from typing import Any

import pytest

from routerbench.found import evaluations_of, number_at


def test_numbers_are_kept_by_study_mode_and_name() -> None:
    result = {
        "top1": 0.5,
        "images": 7,
        "by_grouping": [0.5],
        "origin": {"seed": 0},
        "slots": None,
        "flag": True,
    }
    found = evaluations_of({"evaluations": {"capacity": {"dropless=true": result}}})
    assert found == {"capacity": {"dropless=true": {"top1": 0.5, "images": 7.0}}}
    assert number_at(found, "capacity", "dropless=true", "top1") == 0.5
    assert number_at(found, "capacity", "dropless=true", "slots") is None
    assert number_at(found, "routers", "random", "top1") is None


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        "all",
        [1],
        {"capacity": None},
        {"capacity": [1]},
        {"capacity": {"trained": 0.5}},
        {"capacity": {"trained": {"top1": "0.5"}}},
        {"capacity": {"trained": {"top1": float("nan"), "top5": float("inf"), "loss": 10**400}}},
    ],
)
def test_of_another_form_nothing_is_kept(damaged: Any) -> None:
    assert evaluations_of({"evaluations": damaged}) == {}


def test_a_record_without_evaluations_has_none() -> None:
    assert evaluations_of({"metrics": {"test/top1": 0.5}}) == {}
