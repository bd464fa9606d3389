"""What of the numbers stands beside a picture."""

import math
from collections.abc import Mapping
from typing import Any

from routerbench.found import is_number

Numbers = Mapping[str, Any]
"""What the record says: `<layer>/<what>` and, with an ending, what belongs to it."""


def number(numbers: Numbers, name: str) -> float:
    """The value of this name; NaN where there is none."""
    value = numbers.get(name)
    return float(value) if is_number(value) else math.nan


def interval(numbers: Numbers, name: str) -> str:
    """A specialisation with its interval, as `0.31 [0.28, 0.34]`."""
    value = number(numbers, name)
    if math.isnan(value):
        return "not measured"
    low, high = number(numbers, f"{name}_low"), number(numbers, f"{name}_high")
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def chance(numbers: Numbers, name: str) -> str:
    """What the null model gives, as `by chance 0.01, p 0.005`; empty where it was not asked."""
    null, p = number(numbers, f"{name}_null"), number(numbers, f"{name}_p")
    words = [] if math.isnan(null) else [f"by chance {null:.2f}"]
    return ", ".join(words + ([] if math.isnan(p) else [f"p {p:.2g}"]))


def beside(numbers: Numbers, layer: str, what: str) -> str:
    """The lines below a panel's title: how far `what` explains the expert of a token in this layer."""
    name = f"{layer}/{what}"
    return "\n".join(
        filter(None, (f"{what.replace('_', ' ')} {interval(numbers, name)}", chance(numbers, name)))
    )
