"""Refusals are one line that names the setting, its value and what would do."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from routerbench import checks

COUNT = "must be a whole number of at least 1"
POSITIVE = "must be a number above 0"
NOT_NEGATIVE = "must be a number of at least 0"


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (checks.check_count, (1, 8)),
        (checks.check_positive, (1e-9, 0.5, 3)),
        (checks.check_not_negative, (0, 0.0, 3)),
        (checks.check_flag, (True, False)),
    ],
)
def test_a_value_in_range_passes(check: Callable[[str, object], None], good: tuple[Any, ...]) -> None:
    for value in good:
        check("x", value)


@pytest.mark.parametrize(
    ("check", "rule", "bad"),
    [
        (checks.check_count, COUNT, (0, -1, 1.0, 1.5, True, None, "1", math.nan)),
        (checks.check_positive, POSITIVE, (0, 0.0, -1, math.nan, math.inf, True, None, "1")),
        (checks.check_not_negative, NOT_NEGATIVE, (-1, -1e-9, math.nan, math.inf, True, None, "1")),
        (checks.check_flag, "must be true or false", (0, 1, None, "true")),
    ],
)
def test_a_value_out_of_range_is_named(
    check: Callable[[str, object], None], rule: str, bad: tuple[Any, ...]
) -> None:
    for value in bad:
        with pytest.raises(ValueError, match=exactly(f"x={value} {rule}")):
            check("x", value)


def test_a_count_above_its_limit_names_the_limit() -> None:
    checks.check_count("top_k", 8, 8, "num_experts")
    with pytest.raises(ValueError, match=exactly("top_k=9 is more than num_experts=8: give at most that")):
        checks.check_count("top_k", 9, 8, "num_experts")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("sofd", "x=sofd is not one of: soft, hard (did you mean soft?)"),
        ("zzz", "x=zzz is not one of: soft, hard"),
        (None, "x=None is not one of: soft, hard"),
        (3, "x=3 is not one of: soft, hard"),
    ],
)
def test_an_unknown_choice_comes_with_all_and_the_nearest(value: object, text: str) -> None:
    checks.check_one_of("x", "soft", ("soft", "hard"))
    with pytest.raises(ValueError, match=exactly(text)):
        checks.check_one_of("x", value, ("soft", "hard"))


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        (checks.check_count, 10**20, "x=100000000000000000000 is more than 1e+12: give at most that"),
        (checks.check_positive, 1e300, "x=1e+300 must be from 1e-12 to 1e+12"),
        (checks.check_positive, 1e-50, "x=1e-50 must be from 1e-12 to 1e+12"),
        (
            checks.check_not_negative,
            10**26,
            "x=100000000000000000000000000 is more than 1e+12: give at most that",
        ),
    ],
)
def test_numbers_beyond_all_meaning(check: Any, value: float, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check("x", value)
