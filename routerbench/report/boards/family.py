"""Which row of a board is compared with which."""

import re
from collections.abc import Sequence

from routerbench.report.boards.cells import DENSE, OF_MOE, without
from routerbench.report.boards.labels import as_in_its_file
from routerbench.report.boards.rows import Row
from routerbench.report.boards.rule import Family
from routerbench.report.runs.run import key_of

BASELINE = "token_choice"


def family_of(rows: Sequence[Row]) -> Family:
    """Each row against its dense twin, then each other row against softmax Token Choice.

    Where rows do not differ in router, or neither is there, the reference is the first row but dense by its
    label.
    Rows without any score are compared with nothing.
    """
    places = [place for place, row in enumerate(rows) if row.scores and row.router != DENSE]
    twins = [(place, _twin(place, rows)) for place in places]
    baselines = [(place, _baseline(place, rows)) for place in places]
    if all(reference is None for _, reference in [*twins, *baselines]):
        baselines = [(place, _first(places, rows)) for place in places]
    pairs = [(place, reference) for place, reference in [*twins, *baselines] if reference is not None]
    return [(place, reference) for place, reference in pairs if place != reference]


def _first(places: Sequence[int], rows: Sequence[Row]) -> int:
    return min(places, key=lambda place: _natural(rows[place].label))


def _twin(place: int, rows: Sequence[Row]) -> int | None:
    """The dense row with the same settings but for the MoE."""
    own = key_of(without(rows[place].compared, OF_MOE))
    dense = (other for other, row in enumerate(rows) if row.router == DENSE)
    return next((other for other in dense if key_of(without(rows[other].compared, OF_MOE)) == own), None)


def _baseline(place: int, rows: Sequence[Row]) -> int | None:
    """Token Choice as its file has it, with the same settings but for the router; or the first row."""
    sparse = [other for other, row in enumerate(rows) if row.router != DENSE and row.scores]
    if "router.name" not in rows[place].compared:
        return _first(sparse, rows)
    own = key_of(without(rows[place].compared, ["router"]))
    alike = [other for other in sparse if key_of(without(rows[other].compared, ["router"])) == own]
    plain = [
        other for other in alike if rows[other].router == BASELINE and as_in_its_file(rows[other].settings)
    ]
    return min(plain, key=lambda other: _natural(rows[other].label), default=None)


def _natural(label: str) -> list[tuple[float, str]]:
    """An order of labels in which 8 comes before 16."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(float(part), "") if number % 2 else (0.0, part) for number, part in enumerate(parts)]
