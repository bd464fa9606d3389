"""Numbers as people say them."""

import pytest

from routerbench.overview.units import duration, in_thousands, numbers


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.6, "1.00 k"),
        (10_865_408, "10.9 M"),
        (99_960, "100 k"),
        (999_500, "1.00 M"),
        (1.2e15, "1.20 P"),
        (5e24, "5000 Z"),
    ],
)
def test_thousands(number: float, text: str) -> None:
    assert in_thousands(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1.0 min"), (750, "12.5 min"), (11_520, "3.2 h"), (172_800, "2.0 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("values", "text"), [([], ""), ([3], "3"), ([2, 0, 1], "0-2"), ([0, 1, 5, 7, 8], "0-1,5,7-8")]
)
def test_neighbours_stand_together(values: list[int], text: str) -> None:
    assert numbers(values) == text
