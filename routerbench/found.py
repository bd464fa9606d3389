"""What a record tells of evaluations, as far as it can be counted on: numbers by study, mode and name."""

import sys
from collections.abc import Mapping
from typing import Any, TypeGuard

Numbers = Mapping[str, float]
Evaluations = Mapping[str, Mapping[str, Numbers]]
"""`evaluations[study][mode][name]`, without studies and modes that have no number."""

MOST_POINTS = 0.1  # that an accuracy may depend on batch-mates before it is told
LARGEST = sys.float_info.max  # JSON knows more digits, and Python infinity


def evaluations_of(record: Mapping[str, Any]) -> Evaluations:
    """The finite numbers that stand under `evaluations` of a record; of what has another form nothing."""
    found = _mapping(record.get("evaluations"))
    studies = {study: _modes(modes) for study, modes in found.items()}
    return {study: modes for study, modes in studies.items() if modes}


def number_at(evaluations: Evaluations, study: str, mode: str, name: str) -> float | None:
    """One number, None where it was not measured."""
    return evaluations.get(study, {}).get(mode, {}).get(name)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of a record is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _modes(study: Any) -> dict[str, Numbers]:
    modes = {mode: _numbers(result) for mode, result in _mapping(study).items()}
    return {mode: numbers for mode, numbers in modes.items() if numbers}


def _numbers(result: Any) -> Numbers:
    # Ten thousand records have their names in common, and a million numbers.
    return {
        sys.intern(name): float(value)
        for name, value in _mapping(result).items()
        if type(value) in (float, int) and abs(value) <= LARGEST
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
