"""Refusals: one line that names the setting, its value and what would do."""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TypeGuard

# No setting means anything beyond, and single precision holds what is made of it.
LARGEST = 1e12


def check_count(name: str, value: object, most: int | None = None, limit: str = "") -> None:
    """Raise ValueError unless the setting `name` is a whole number from 1 to `most`, which `limit` names."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value} must be a whole number of at least 1")
    if value > LARGEST:
        raise ValueError(f"{name}={value} is more than {LARGEST:.0e}: give at most that")
    if most is not None and value > most:
        raise ValueError(f"{name}={value} is more than {limit}={most}: give at most that")


def check_positive(name: str, value: object) -> None:
    """Raise ValueError unless the setting `name` is a finite number above 0."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be a number above 0")
    if not 1 / LARGEST <= value <= LARGEST:
        raise ValueError(f"{name}={value} must be from {1 / LARGEST:.0e} to {LARGEST:.0e}")


def check_not_negative(name: str, value: object) -> None:
    """Raise ValueError unless the setting `name` is a finite number of at least 0."""
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name}={value} must be a number of at least 0")
    if value > LARGEST:
        raise ValueError(f"{name}={value} is more than {LARGEST:.0e}: give at most that")


def check_flag(name: str, value: object) -> None:
    """Raise ValueError unless the setting `name` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value} must be true or false")


def check_one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless the setting `name` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value} is not one of: {', '.join(choices)}{did_you_mean(value, choices)}")


def did_you_mean(value: object, choices: Sequence[str]) -> str:
    """The nearest of the choices, as the end of a sentence; empty when none is near."""
    near = get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    return f" (did you mean {near[0]}?)" if near else ""


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
