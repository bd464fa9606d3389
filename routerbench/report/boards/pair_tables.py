"""The pairs of a board as a table, with what so many seeds can and cannot tell."""

from collections.abc import Sequence

from routerbench.report.boards.board import UNFINISHED, Board
from routerbench.report.boards.labels import as_in_its_file
from routerbench.report.boards.pairs import POWER, Pair
from routerbench.report.boards.rows import Row
from routerbench.report.boards.rule import ALPHA
from routerbench.report.published import published_difference
from routerbench.report.tables.table import NOTHING, Cell, Column, Line, Table, estimate_cell, fixed

PAIR = Column("pair", "\npair")
COLUMNS = (
    Column("difference, points", "difference\npoints"),
    Column("p (Holm)", "p\n(Holm)"),
    Column("verdict", "\nverdict"),
    Column("seeds", "\nseeds"),
)
TWO_LEVEL = Column("over seeds and images, points", "seeds, images\npoints")
PUBLISHED = Column("published, points", "published\npoints")

LEGEND = (
    "Pairs: the row minus its reference, over the seeds that both finished. p: paired t-test, in which no "
    "deviation counts as less than that of one test image, corrected (Holm) for all tested pairs of the "
    "board; better or worse where it is below alpha. Equivalent: within delta by two one-sided t-tests, "
    "corrected likewise. ± is not corrected. Rank: the places that the verdicts leave open.",
    "Over seeds and images: the 95 % interval for other seeds and other test images at once. Published: the "
    "two methods' mean difference in ImageNet 10-shot accuracy (lowest and highest) in table 9 of Puigcerver "
    "et al. 2024, at other scales and on other data.",
)


def pairs_table(board: Board) -> Table:
    """One line for each pair of the board; without lines where it has no pair."""
    pairs = board.pairs.pairs
    cells = {PAIR: [Cell(name_of(pair, board)) for pair in pairs]}
    tested = [_tested(pair, board) for pair in pairs]
    cells |= {column: [line[place] for line in tested] for place, column in enumerate(COLUMNS)}
    if any(pair.two_level for pair in pairs):
        cells[TWO_LEVEL] = [_two_level(pair) for pair in pairs]
    published = [_published(pair, board) for pair in pairs]
    if any(published):
        cells[PUBLISHED] = [cell or Cell(NOTHING) for cell in published]
    lines = [Line(line) for line in zip(*cells.values(), strict=True)]
    num_first = len({pair.row for pair in pairs if _is_dense(pair, board)})
    return Table("Pairs", _caption(board), list(cells), lines, num_first, _notes(board))


def name_of(pair: Pair, board: Board) -> str:
    """Which row is compared with which."""
    return " vs ".join(_marked(board.rows[place]) for place in (pair.row, pair.reference))


def _marked(row: Row) -> str:
    return f"{row.label} {UNFINISHED}" if row.unfinished else row.label


def verdict_of(pair: Pair, delta: float) -> str:
    """The verdict in words; `delta` as a fraction."""
    if not pair.tested:
        return "not tested"
    return f"equivalent within {100 * delta:g}" if pair.verdict == "equivalent" else pair.verdict


def _tested(pair: Pair, board: Board) -> Sequence[Cell]:
    return (
        estimate_cell(pair.difference, "+"),
        Cell(_p_text(pair.p), pair.p) if pair.tested else Cell(NOTHING),
        Cell(verdict_of(pair, board.pairs.delta)),
        Cell(str(pair.difference.n), pair.difference.n),
    )


def _two_level(pair: Pair) -> Cell:
    return Cell(NOTHING) if pair.two_level is None else estimate_cell(pair.two_level, "+")


def _published(pair: Pair, board: Board) -> Cell | None:
    """What a published table says of the same two methods, by the first of its accuracies."""
    row, reference = board.rows[pair.row], board.rows[pair.reference]
    if row.router == reference.router or not all(as_in_its_file(one.settings) for one in (row, reference)):
        return None
    told = published_difference(row.router, reference.router)
    if not told:
        return None
    mean, low, high = (fixed(100 * value, 2, "+") for value in (told[0].mean, told[0].low, told[0].high))
    return Cell(f"{mean} ({low} to {high})", told[0].mean)


def _p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _is_dense(pair: Pair, board: Board) -> bool:
    return pair is board.against_dense(pair.row)


def _caption(board: Board) -> str:
    pairs = board.pairs
    delta = f"delta {100 * pairs.delta:g} points"
    parts = [f"{_references(board)}: {_counted(pairs.num_tested)} tested, alpha {ALPHA}, {delta}."]
    if any(_alone(pair) for pair in pairs.pairs):
        parts.append(
            "Where ± excludes 0 and the verdict is undecided, the pair would pass alone, but among "
            f"{_counted(pairs.num_tested)} such a difference is too likely by chance."
        )
    return " ".join(parts)


def _references(board: Board) -> str:
    dense = [pair for pair in board.pairs.pairs if _is_dense(pair, board)]
    others = [pair for pair in board.pairs.pairs if not _is_dense(pair, board)]
    labels = list(dict.fromkeys(board.rows[pair.reference].label for pair in others))
    names = ["its dense twin"] * bool(dense) + ([" or ".join(labels)] if labels else [])
    return f"Each row minus {', then minus '.join(names)}" if names else "No two rows to compare"


def _counted(num_pairs: int) -> str:
    return "1 pair" if num_pairs == 1 else f"{num_pairs} pairs"


def _alone(pair: Pair) -> bool:
    """Whether the pair's own interval tells what the whole family does not."""
    return pair.verdict == "undecided" and (pair.difference.low > 0 or pair.difference.high < 0)


def _notes(board: Board) -> list[str]:
    notes = [_power(board)] if board.pairs.pairs else []
    compared = {place for pair in board.pairs.pairs for place in (pair.row, pair.reference)}
    if any(board.rows[place].unfinished for place in compared):
        notes.append(f"{UNFINISHED} not every run finished: the verdict stands for the seeds that did")
    notes += [f"Not told for other test images: {', '.join(only)}"] if (only := _these_images(board)) else []
    if board.pairs.unreadable:
        names = ", ".join(board.pairs.unreadable)
        notes.append(f"Correctness per image that is damaged or of another score, and not used: {names}")
    return notes


def _these_images(board: Board) -> list[str]:
    """The pairs that are called different although their interval over seeds and images has 0 in it."""
    return [
        name_of(pair, board)
        for pair in board.pairs.pairs
        if pair.verdict in ("better", "worse")
        and pair.two_level
        and pair.two_level.low <= 0 <= pair.two_level.high
    ]


def _power(board: Board) -> str:
    pairs = board.pairs
    most = max(pair.difference.n for pair in pairs.pairs)
    if most == 0:
        return "No common seeds: no difference and no test, nothing can be decided"
    if not pairs.num_tested:
        return "One seed: no interval and no test, nothing can be decided"
    if not 0 < pairs.detectable < 1:
        return (
            f"With {pairs.usual_n} seeds hardly any difference could be seen ({_counted(pairs.num_tested)})"
        )
    return (
        f"With {pairs.usual_n} seeds a difference below {100 * pairs.detectable:.2f} points would hardly be "
        f"seen (power {POWER}, {_counted(pairs.num_tested)})"
    )
