import math

import pytest

from routerbench.report.tables.table import fixed


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (-0.004, "", "0.00"),
        (-0.004, "+", "+0.00"),
        (-0.0, "", "0.00"),
        (-0.006, "", "-0.01"),
        (math.nan, "", "-"),
    ],
)
def test_no_zero_is_negative(value: float, sign: str, text: str) -> None:
    assert fixed(value, 2, sign) == text
