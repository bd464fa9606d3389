"""What is the same configuration on several boards, and what it is called on all of them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from routerbench.report.boards.board import REFERENCES, Board
from routerbench.report.boards.cells import DENSE, OF_MOE, without
from routerbench.report.boards.labels import label_of
from routerbench.report.boards.rows import Row
from routerbench.report.runs.run import Settings, key_of


def rows_by_configuration(board: Board) -> dict[str, Row]:
    """The rows of a board by what they compare: equal keys on two boards are one configuration."""
    return {key_of(_own(row, board.settings)): row for row in board.rows}


def names_of(keys: Iterable[str], by: Sequence[str]) -> dict[str, str]:
    """A name for each of these configurations, which differ in `by`: what tells it from the others here."""
    settings: dict[str, Settings] = {key: json.loads(key) for key in keys}
    return {key: label_of(own, list(settings.values()), by) for key, own in settings.items()}


def plainest(keys: Iterable[str], by: Sequence[str]) -> str:
    """The configuration, of one at least, with the shortest name of its own, without what its file has."""
    names = {key: names_of([key], by)[key] for key in keys}
    return min(names, key=lambda key: (len(names[key]), names[key], key))


def dense_twin(key: str) -> str:
    """The configuration without MoE that is equal to this one in all else that is compared."""
    return key_of(without(json.loads(key), OF_MOE) | {"router.name": DENSE})


def full_title(board: Board) -> str:
    """The title with the settings that tell the board from others of the same title."""
    return " · ".join(filter(None, (board.title, board.subtitle.rpartition(" · ")[0])))


def evaluation_of(boards: Sequence[Board]) -> str:
    """The metric, how it was evaluated and of which weights: more than one where the boards differ."""
    return " or ".join(dict.fromkeys(board.subtitle.rpartition(" · ")[2] for board in boards))


def order_of(router: str, score: float, name: str) -> tuple[int, bool, float, str]:
    """Where a line stands: references, then by score from the best, then those without one."""
    reference = REFERENCES.index(router) if router in REFERENCES else len(REFERENCES)
    unknown = score != score
    return reference, unknown, 0.0 if unknown else -score, name


def _own(row: Row, cell: Settings) -> dict[str, Any]:
    """The compared settings without those that a router only passes on from the cell's."""
    return {name: value for name, value in row.compared.items() if not _passed_on(name, value, cell)}


def _passed_on(name: str, value: Any, cell: Settings) -> bool:
    setting = name.removeprefix("router.")
    return setting != name and setting in cell and cell[setting] == value
