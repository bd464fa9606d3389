"""What is the same configuration on several boards, and what it is called on all of them."""

from collections.abc import Sequence
from typing import Any

from routerbench.report.boards import REFERENCES, Board
from routerbench.report.labels import label_of
from routerbench.report.rows import Row
from routerbench.report.runs import Settings, key_of


def rows_by_configuration(board: Board) -> dict[str, Row]:
    """The rows of a board by what they compare: equal keys on two boards are one configuration."""
    return {key_of(_own(row, board.settings)): row for row in board.rows}


def names_of(boards: Sequence[Board]) -> dict[str, str]:
    """The name of each configuration of these boards, which compare the same settings."""
    own = {key_of(settings): settings for board in boards for settings in _all_own(board)}
    return {key: label_of(settings, list(own.values()), boards[0].by) for key, settings in own.items()}


def order_of(router: str, score: float, name: str) -> tuple[int, bool, float, str]:
    """Where a line stands: references, then by score from the best, then those without one."""
    reference = REFERENCES.index(router) if router in REFERENCES else len(REFERENCES)
    unknown = score != score
    return reference, unknown, 0.0 if unknown else -score, name


def _all_own(board: Board) -> list[Settings]:
    return [_own(row, board.settings) for row in board.rows]


def _own(row: Row, cell: Settings) -> dict[str, Any]:
    """The compared settings without those that a router only passes on from the cell's."""
    return {name: value for name, value in row.compared.items() if not _passed_on(name, value, cell)}


def _passed_on(name: str, value: Any, cell: Settings) -> bool:
    setting = name.removeprefix("router.")
    return setting != name and setting in cell and cell[setting] == value
