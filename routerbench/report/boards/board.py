"""Runs -> boards: one a cell (all that must be equal), with a row for each configuration in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from routerbench.report.boards.cells import (
    DENSE,
    OF_MOE,
    cell_of,
    compared,
    is_dense,
    order_of,
    title_of,
    without,
)
from routerbench.report.boards.evaluated import on_batch_mates, sensitivity_of
from routerbench.report.boards.labels import differing, evaluated_otherwise, label_of
from routerbench.report.boards.pairs import Pair, Pairs, pairs_of
from routerbench.report.boards.rows import Row, row_of, together
from routerbench.report.runs.metric import Metric
from routerbench.report.runs.run import Run, Settings, key_of, of_one_configuration, one_a_seed, text_of

REFERENCES = (DENSE, "hash", "random")  # a router that does not beat them has learnt nothing
EVALUATION = "evaluation at train capacity"
SOME_EVALUATED_OTHERWISE = "evaluation at train capacity unless a row says otherwise"
EVALUATED_AFTER = "evaluation after training"
WEIGHTS = {"raw": "raw weights", "ema": "running average of the weights"}
UNFINISHED, MIXED, FEWER_PAIRS, BATCH_MATES = "†", "‡", "§", "¶"


@dataclass(frozen=True)
class Board:
    """The rows of one cell; `settings` are those that all its rows share, `by` those in which they differ.

    `apart`: the settings that boards of the same title do not share with it.
    """

    title: str
    subtitle: str
    settings: Settings
    by: Sequence[str]
    metric: Metric
    rows: Sequence[Row]
    pairs: Pairs
    notes: Sequence[str]
    apart: str = ""

    @property
    def name(self) -> str:
        """The title, with what tells the board from others of this title."""
        return " · ".join([self.title, self.apart] if self.apart else [self.title])

    def against_dense(self, place: int) -> Pair | None:
        """The pair of the row at this place with its dense twin."""
        pairs = [pair for pair in self.pairs.pairs if pair.row == place]
        return next((pair for pair in pairs if self.rows[pair.reference].router == DENSE), None)


def build_boards(runs: Sequence[Run], by: Sequence[str], metric: Metric, delta: float) -> list[Board]:
    """One board a cell, its rows differing in `by`; a dense run joins each cell equal to it but for the MoE.

    `delta`: the difference, a fraction, within which two rows count as equivalent.
    """
    cells: dict[str, list[list[Run]]] = {}
    twins: dict[str, list[list[Run]]] = {}
    for same in of_one_configuration(runs):
        (twins if is_dense(same[0]) else cells).setdefault(key_of(cell_of(same[0], by)), []).append(same)
    dense_of = {key: key_of(without(cell_of(same[0], by), OF_MOE)) for key, (same, *_) in cells.items()}
    groups = [(configurations, twins.get(dense_of[key], [])) for key, configurations in cells.items()]
    groups += [([], dense) for key, dense in twins.items() if key not in set(dense_of.values())]
    boards = [_board(sparse, dense, by, metric, delta) for sparse, dense in groups]
    boards.sort(key=lambda board: (order_of(board.settings), key_of(board.settings)))
    return _told_apart(boards)


def marks(place: int, board: Board) -> str:
    """The footnote signs of the row at this place."""
    row, pair = board.rows[place], board.against_dense(place)
    pairs_missing = (
        pair is not None and board.rows[pair.reference].done and pair.difference.n < len(row.scores)
    )
    sensitivity = sensitivity_of(row)
    signs = (
        (UNFINISHED, row.unfinished),
        (MIXED, row.mixed),
        (FEWER_PAIRS, pairs_missing),
        (BATCH_MATES, sensitivity is not None and sensitivity.told),
    )
    return "".join(sign for sign, shown in signs if shown)


def _board(
    sparse: Sequence[Sequence[Run]],
    dense: Sequence[Sequence[Run]],
    by: Sequence[str],
    metric: Metric,
    delta: float,
) -> Board:
    """The board of these configurations, each with all its runs."""
    given = [*sparse, *dense]
    settings, configurations = cell_of(given[0][0], by), [one_a_seed(same) for same in given]
    rows, num_runs = _rows(configurations, by, metric), sum(map(len, configurations))
    subtitle = f"{metric.name}, {_evaluation(rows, metric)}"
    pairs = pairs_of(rows, metric, delta)
    board = Board(title_of(settings, by), subtitle, settings, by, metric, rows, pairs, ())
    return replace(board, notes=_notes(board, sum(map(len, given)) - num_runs))


def _evaluation(rows: Sequence[Row], metric: Metric) -> str:
    """How the metric was taken; what was found after training has that in its name."""
    if metric.place is not None:
        return EVALUATED_AFTER
    otherwise = any(evaluated_otherwise(_router(row)) for row in rows)
    return f"{SOME_EVALUATED_OTHERWISE if otherwise else EVALUATION}, {_weights(rows)}"


def _weights(rows: Sequence[Row]) -> str:
    """Which weights were evaluated."""
    names = {name for row in rows for name in row.origins["weights"]}
    return " or ".join(WEIGHTS.get(name, f"{name} weights") for name in sorted(names or {"raw"}))


def _rows(configurations: Sequence[Sequence[Run]], by: Sequence[str], metric: Metric) -> list[Row]:
    """A row for what is compared: references, then by mean score, then those without one."""
    settings: dict[str, Settings] = {}
    rows: dict[str, list[Run]] = {}
    for same in configurations:
        own = compared(same[0], by)
        key = key_of(own)
        settings.setdefault(key, own)
        rows.setdefault(key, []).extend(same)
    others = list(settings.values())
    found = [
        row_of(label_of(own, others, by), own, sorted(rows[key], key=lambda run: run["config.seed"]), metric)
        for key, own in settings.items()
    ]
    return sorted(found, key=_order)


def _order(row: Row) -> tuple[int, bool, float, str]:
    reference = REFERENCES.index(row.router) if row.router in REFERENCES else len(REFERENCES)
    unknown = math.isnan(row.score.mean)
    return reference, unknown, 0.0 if unknown else -row.score.mean, row.label


def _router(row: Row) -> dict[str, object]:
    prefix = "router."
    return {
        path.removeprefix(prefix): value for path, value in row.settings.items() if path.startswith(prefix)
    }


def _told_apart(boards: Sequence[Board]) -> list[Board]:
    """The boards, each with a subtitle that says in what it differs from boards of the same title."""
    namesakes: dict[str, list[Settings]] = {}
    for board in boards:
        namesakes.setdefault(board.title, []).append(board.settings)
    differences = {title: differing(settings) for title, settings in namesakes.items()}
    return [_subtitled(board, differences[board.title]) for board in boards]


def _subtitled(board: Board, names: Sequence[str]) -> Board:
    if not names:
        return board
    apart = " · ".join(f"{name}={text_of(board.settings.get(name))}" for name in names)
    return replace(board, subtitle=f"{apart} · {board.subtitle}", apart=apart)


def _notes(board: Board, repeated: int) -> list[str]:
    signs = {sign for place in range(len(board.rows)) for sign in marks(place, board)}
    mixed = dict.fromkeys(name for row in board.rows for name in row.mixed)
    texts = {
        UNFINISHED: "not every run of this row finished: its numbers stand for those that did",
        MIXED: f"the runs of this row differ in {', '.join(mixed)}",
        FEWER_PAIRS: "dense lacks some seeds of this row: minus dense is taken over those that both finished",
        BATCH_MATES: on_batch_mates(board.rows),
    }
    notes = [f"{sign} {text}" for sign, text in texts.items() if sign in signs]
    origins = together([row.origins for row in board.rows if row.done])
    notes += [
        f"The runs of this board differ in {name}: {', '.join(values)}"
        for name, values in origins.items()
        if len(values) > 1
    ]
    oom = [f"{row.label} {row.oom}" for row in board.rows if row.oom]
    notes += [f"Failed runs that were out of memory: {', '.join(oom)}"] * bool(oom)
    # A copied folder is not a second replication.
    return notes + [
        f"Same configuration and seed twice, the finished or else the later one counts: {repeated}"
    ] * (repeated > 0)
