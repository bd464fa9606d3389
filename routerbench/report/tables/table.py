"""Tables and sections: what every way to show a report shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from routerbench.stats import Estimate, Interval

NOTHING = "-"
PLUS_MINUS = " ± "


@dataclass(frozen=True)
class Cell:
    """What is read, and what it is sorted by where that is a number."""

    text: str
    value: float | int | None = None


@dataclass(frozen=True)
class Column:
    """A header, and the same in two short lines for the terminal."""

    header: str
    short: str


@dataclass(frozen=True)
class Line:
    """The cells of one line, the first of them its name; `marked` where its numbers need a second look."""

    cells: Sequence[Cell]
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its name and notes; `num_references` lines at its top are set apart from the others."""

    name: str
    caption: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    num_references: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """Tables that belong together under one title."""

    title: str
    tables: Sequence[Table]


def estimate_cell(estimate: Estimate, sign: str = "") -> Cell:
    """A fraction in percent (or a difference in points) with half the width of its interval."""
    return mean_cell(estimate, 100.0, 2, sign)


def mean_cell(estimate: Estimate, factor: float, digits: int, sign: str = "") -> Cell:
    """A mean times a factor, to so many digits, with half the width of its interval."""
    mean = fixed(factor * estimate.mean, digits, sign)
    half = factor * (estimate.high - estimate.low) / 2
    return Cell(mean if math.isnan(half) else f"{mean}{PLUS_MINUS}{half:.{digits}f}", estimate.mean)


def interval_cell(interval: Interval, factor: float, digits: int, sign: str = "") -> Cell:
    """A number times a factor with the ends of its interval, which need not lie evenly around it."""
    value, low, high = (
        fixed(factor * one, digits, sign) for one in (interval.value, interval.low, interval.high)
    )
    return Cell(value if low == NOTHING else f"{value} ({low} to {high})", interval.value)


def number_cell(value: float, digits: int) -> Cell:
    """A number with so many digits after the point."""
    return Cell(fixed(value, digits), value)


def fixed(value: float, digits: int, sign: str = "") -> str:
    """The number with so many digits after the point, no negative zero, a dash where there is none."""
    return NOTHING if math.isnan(value) else f"{value:{sign}z.{digits}f}"


def significant(value: float) -> str:
    """Three significant digits, or the whole number from 100 on."""
    if math.isnan(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}" if value else "0"
