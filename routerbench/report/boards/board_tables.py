"""A board as tables: rows with quality and cost, and the pairs with their verdicts."""

import math
from collections.abc import Sequence
from dataclasses import replace

from routerbench.report.boards.at_test_time import test_time_tables
from routerbench.report.boards.board import REFERENCES, Board, marks
from routerbench.report.boards.evaluated import NMI, specialisation
from routerbench.report.boards.pair_tables import pairs_table
from routerbench.report.boards.rows import Cost, Row
from routerbench.report.published import PublishedScore, published_score
from routerbench.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    Line,
    Section,
    Table,
    estimate_cell,
    fixed,
    mean_cell,
    number_cell,
    significant,
)

SEEDS_SHOWN = 8
NMI_COLUMNS = {what: Column(f"{what} NMI", f"{what}\nNMI") for what in NMI}
PUBLISHED = Column("published %", "pub-\nlished %")
LEGEND = (
    "± is half the width of the 95 % t-interval over seeds. Minus dense: the row minus its dense twin, "
    "in points, paired by seed.",
    "Balanced: accuracy averaged over classes. n counts the finished runs, failed those out of memory too. "
    "Dropped: tokens that no slot holds. Costs are means over the finished runs, peak GiB is the largest; in "
    "brackets: in evaluation, where that differs.",
)

SPECIALISED = (
    "NMI: what the class of the image, or the position of the patch, tells of the expert that serves it: "
    "normalised mutual information, corrected for chance and averaged over MoE layers. 1: it tells the "
    "expert, 0: it tells nothing. ± as above, by routerbench inspect."
)


def section_of(board: Board) -> Section:
    """All tables of a board."""
    pairs = [pairs_table(board)] if board.pairs.pairs else []
    return Section(board.title, [_rows_table(board), *pairs, *test_time_tables(board)])


def legend_of(boards: Sequence[Board]) -> list[str]:
    """What the columns and tables of these boards mean."""
    specialised = any(_specialisations(board) for board in boards)
    return [*LEGEND, *[SPECIALISED] * specialised]


def _rows_table(board: Board) -> Table:
    specialised = _specialisations(board)
    giga = any(row.cost.flops_per_image >= 1e9 for row in board.rows)
    unit, scale = ("GFLOP", 1e9) if giga else ("MFLOP", 1e6)
    columns = [*_quality_columns(board), *(NMI_COLUMNS[what] for what in specialised), *_cost_columns(unit)]
    lines = [_line(place, board, specialised, scale) for place in range(len(board.rows))]
    published = [published_score(row.settings, board.metric.name) for row in board.rows]
    if any(published):
        columns.append(PUBLISHED)
        lines = [_beside(line, score) for line, score in zip(lines, published, strict=True)]
    num_references = sum(row.router in REFERENCES for row in board.rows)
    return Table("", board.subtitle, columns, lines, num_references, board.notes)


def _specialisations(board: Board) -> list[str]:
    """Of what experts may be told from that which is known of some row."""
    return [what for what in NMI if any(specialisation(row, what).n for row in board.rows)]


def _beside(line: Line, published: PublishedScore | None) -> Line:
    """The line with what a paper prints for its configuration."""
    cell = Cell(NOTHING) if published is None else number_cell(100 * published.score, 1)
    return replace(line, cells=[*line.cells, cell])


def _quality_columns(board: Board) -> Sequence[Column]:
    label = board.metric.label
    compared = ", ".join(board.by)
    return (
        Column(compared, f"\n{compared}"),
        Column(label, label.replace(" ", "\n") if label.count(" ") == 1 else f"\n{label}"),
        Column("rank", "\nrank"),
        Column("minus dense, points", "minus dense\npoints"),
        Column("balanced %", "bal-\nanced"),
        Column("n", "\nn"),
        Column("each seed", "each\nseed"),
        Column("failed", "fail-\ned"),
        Column("diverged", "diver-\nged"),
        Column("dropped %", "drop-\nped %"),
    )


def _cost_columns(unit: str) -> Sequence[Column]:
    return (
        Column("slots/token", "slots\n/tok."),
        Column(f"{unit}s/image", f"{unit}\n/img"),
        Column("params M", "params\nM"),
        Column("active M", "active\nM"),
        Column("images/s", "img\n/s"),
        Column("train s", "train\ns"),
        Column("peak GiB", "peak\nGiB"),
    )


def _line(place: int, board: Board, specialised: Sequence[str], scale: float) -> Line:
    row, signs = board.rows[place], marks(place, board)
    name = Cell(f"{row.label} {signs}".rstrip())
    shares = [mean_cell(specialisation(row, what), 1.0, 3) for what in specialised]
    cells = [name, *_quality(place, board), *shares, *_costs(row.cost, scale)]
    return Line(cells, marked=bool(signs) or not row.done)


def _quality(place: int, board: Board) -> Sequence[Cell]:
    row, pair = board.rows[place], board.against_dense(place)
    return (
        estimate_cell(row.score),
        _rank(board.pairs.ranks[place], row),
        Cell(NOTHING) if pair is None else estimate_cell(pair.difference, "+"),
        number_cell(100 * row.balanced, 2),
        Cell(str(row.done), row.done),
        _each_seed(row, sorted({seed for other in board.rows for seed in other.scores})),
        Cell(str(row.failed), row.failed),
        Cell(str(row.diverged), row.diverged),
        number_cell(100 * row.dropped_fraction, 1),
    )


def _each_seed(row: Row, seeds: Sequence[int]) -> Cell:
    """The score of every seed of the board, of the first ones where they are many: the sheet has them all."""
    if not row.scores:
        return Cell(NOTHING)
    scores = [fixed(100 * row.scores.get(seed, math.nan), 1) for seed in seeds]
    return Cell(" ".join([*scores[:SEEDS_SHOWN], *["…"] * (len(scores) > SEEDS_SHOWN)]))


def _rank(places: tuple[int, int], row: Row) -> Cell:
    first, last = places
    if not row.scores:
        return Cell(NOTHING)
    return Cell(str(first) if first == last else f"{first}-{last}", first)


def _costs(cost: Cost, scale: float) -> Sequence[Cell]:
    return (
        _both(fixed(cost.slots_per_token, 2), fixed(cost.slots_per_token_eval, 2), cost.slots_per_token),
        _both(
            significant(cost.flops_per_image / scale),
            significant(cost.flops_per_image_eval / scale),
            cost.flops_per_image,
        ),
        Cell(significant(cost.params_total / 1e6), cost.params_total),
        Cell(significant(cost.params_active / 1e6), cost.params_active),
        Cell(significant(cost.images_per_second), cost.images_per_second),
        Cell(significant(cost.train_seconds), cost.train_seconds),
        number_cell(cost.peak_memory_gib, 2),
    )


def _both(training: str, evaluation: str, value: float) -> Cell:
    """What it is in training and, in brackets, in evaluation where that is something else."""
    return Cell(training if evaluation in (training, NOTHING) else f"{training} ({evaluation})", value)
