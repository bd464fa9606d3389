"""`--check-null`: how often the report's own rule claims a difference where there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routerbench.report.boards.board import Board
from routerbench.report.boards.pairs import score_matrix
from routerbench.report.boards.rule import ALPHA, Family, differences_of, rule
from routerbench.report.tables.table import NOTHING, Cell, Column, Line, Section, Table
from routerbench.stats import CONFIDENCE, Estimate, noise_of, relabelled, share_interval

TIMES = 1000
SEED = 0
MIN_ROWS, MIN_SEEDS = 4, 3
COLUMNS = (
    Column("board", "\nboard"),
    Column("rows", "\nrows"),
    Column("seeds", "\nseeds"),
    Column("pairs", "\npairs"),
    Column("claims %", "claims\n%"),
    Column("interval %", "interval\n%"),
    Column("alpha %", "alpha\n%"),
)

Floats = NDArray[np.float64]
Claims = NDArray[np.bool_]  # by permutation: whether anything is called better or worse


@dataclass(frozen=True)
class NullCheck:
    """The check as it is shown, and the program's exit code: 1 where a board claims more than alpha."""

    section: Section
    exit_code: int


@dataclass(frozen=True)
class _Dealt:
    """The noise of a board's rows, its pairs, and the claims of permutations of all rows and without each."""

    noise: Floats
    family: Family
    claims: Claims
    without: Claims


def check_null(boards: Sequence[Board]) -> NullCheck:
    """Permute the row labels of each board within each seed and count the claims of the report's rule.

    What is permuted is each row's noise about its own mean, lest real differences show again. Boards with
    fewer than 4 rows or 3 seeds are too small for it: few permutations differ, and of two seeds the noise of
    one mirrors that of the other.
    """
    generator = np.random.default_rng(SEED)
    dealt = [_dealt(board, generator) for board in boards]
    checked = [one for one in dealt if one is not None]
    # All boards at once, so that many boards of a sound rule seldom fail.
    confidence = 1 - (1 - CONFIDENCE) / max(len(checked), 1)
    shares = [one and share_interval(one.claims, one.without, confidence) for one in dealt]
    lines = [_line(number, *it) for number, it in enumerate(zip(boards, dealt, shares, strict=True), 1)]
    table = Table("", _caption(len(checked)), COLUMNS, lines, notes=_notes(checked, len(boards)))
    exceeded = any(share is not None and share.low > ALPHA for share in shares)
    return NullCheck(Section("Null check", [table]), int(exceeded))


def _dealt(board: Board, generator: np.random.Generator) -> _Dealt | None:
    """None where the board is too small to be checked."""
    scores = score_matrix(board.rows)
    kept = np.flatnonzero(np.sum(~np.isnan(scores), axis=1) > 1)
    noise = noise_of(scores[kept])
    family = _among(kept.tolist(), [(pair.row, pair.reference) for pair in board.pairs.pairs])
    if len(kept) < MIN_ROWS or board.pairs.usual_n < MIN_SEEDS or not family:
        return None
    references = {reference for _, reference in family}
    dropped = max(place for place in range(len(kept)) if place not in references)
    smaller = _among([place for place in range(len(kept)) if place != dropped], family)
    without = [
        _claims(np.delete(noise, place, axis=0), smaller, board, generator) for place in range(len(kept))
    ]
    return _Dealt(noise, family, _claims(noise, family, board, generator), np.array(without))


def _claims(noise: Floats, family: Family, board: Board, generator: np.random.Generator) -> Claims:
    differences = differences_of(relabelled(noise, TIMES, generator), family)
    return (rule(differences, board.pairs.delta, board.pairs.resolution).sign != 0).any(axis=-1)


def _among(places: Sequence[int], family: Family) -> Family:
    """The pairs within these places, by their number among them."""
    new = {place: number for number, place in enumerate(places)}
    return [(new[row], new[reference]) for row, reference in family if row in new and reference in new]


def _line(number: int, board: Board, dealt: _Dealt | None, share: Estimate | None) -> Line:
    cells = (
        Cell(f"{number} {board.name}"),
        Cell(str(len(board.rows)), len(board.rows)),
        Cell(str(board.pairs.usual_n), board.pairs.usual_n),
        Cell(str(board.pairs.num_tested), board.pairs.num_tested),
    )
    if dealt is None or share is None:
        return Line([*cells, Cell("too small"), Cell(NOTHING), Cell(NOTHING)])
    interval = f"{100 * share.low:.1f} to {100 * share.high:.1f}"
    found = (
        Cell(f"{100 * share.mean:.1f}", share.mean),
        Cell(interval, share.low),
        Cell(f"{100 * ALPHA:g}", ALPHA),
    )
    return Line([*cells, *found], marked=share.low > ALPHA)


def _caption(num_checked: int) -> str:
    together = "" if num_checked < 2 else f", for all {num_checked} boards at once"
    return (
        f"Claims: of {TIMES} permutations of the row labels within each seed, those in which the rule calls "
        "anything on the board better or worse. Each row's own mean is taken out first, so that no claim is "
        f"true. Interval: 95 %{together}, which allows for the noise that the board happens to have; its "
        "lower end above alpha fails the check."
    )


def _notes(checked: Sequence[_Dealt], num_boards: int) -> list[str]:
    notes = []
    if len(checked) > 1:
        share = np.any([one.claims for one in checked], axis=0).mean()
        notes.append(
            f"On any of the {len(checked)} boards: {100 * share:.1f} %, as alpha holds for each board alone"
        )
    if len(checked) < num_boards:
        notes.append(
            f"Too small to check: boards with fewer than {MIN_ROWS} rows or {MIN_SEEDS} seeds have too few "
            "permutations that differ"
        )
    return notes
