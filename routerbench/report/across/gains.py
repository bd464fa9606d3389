"""Boards -> what holds across their cells: gains, probabilities, ranks, and small against large."""

import math
from collections.abc import Sequence

from routerbench.report.across.block import Block, block_of
from routerbench.report.across.configurations import evaluation_of, full_title, order_of
from routerbench.report.across.families import families_of
from routerbench.report.across.resampled import Overall, overall
from routerbench.report.across.scale_ranks import scale_rank_table
from routerbench.report.boards.board import REFERENCES, Board
from routerbench.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    Line,
    Section,
    Table,
    interval_cell,
    number_cell,
)
from routerbench.stats import Interval, average_ranks, critical_difference, friedman_p, groups_within

ENOUGH_CELLS = 8  # for an interquartile mean and a critical difference
ALPHA = 0.05
NAMED_CELLS = 6  # of those that are left out for one reason; the others are counted
CAPTION = (
    "In brackets the 95 % interval, resampling the seeds inside the cells, for all rows together: it is of "
    "these cells, not of others, and too narrow below five cells of three seeds or where few cells are far "
    "noisier than the rest: with one of five cells five times as noisy, that of the mean gain holds the true "
    "one in 91 % of the cases. P: the probability that a "
    "run of the row beats one of the other, seeds drawn from one cell (ties half), averaged over cells. "
    "Rank: by mean score in each cell, averaged; place: by that average, as far as the resamples leave it "
    "open; kept: the share of them with the same place. No interval is corrected for how many there are."
)


def across_sections(boards: Sequence[Board]) -> list[Section]:
    """One section over the cells that have rows in common, or none below two such cells."""
    block = block_of(boards)
    if block is None:
        return []
    ranks = [scale_rank_table(family) for family in families_of(boards)]
    return [Section("Across cells", [_table(block), *(table for table in ranks if table)])]


def rank_notes(block: Block) -> list[str]:
    """What the critical difference says of the average ranks, or that there are too few cells for it."""
    num_cells, num_rows = block.means.shape
    if num_cells < ENOUGH_CELLS:
        return [f"Critical differences of ranks are told from {ENOUGH_CELLS} cells on: here are {num_cells}"]
    ranks, difference = average_ranks(block.means), critical_difference(num_rows, num_cells, ALPHA)
    groups = [_between(block, ranks.tolist(), *ends) for ends in groups_within(ranks.tolist(), difference)]
    friedman = friedman_p(block.means)
    equal = f"Friedman's test that all rank alike: p = {friedman:.2g}; c" if friedman == friedman else "C"
    return [
        f"{equal}ritical difference of average ranks (Nemenyi, {ALPHA}): {difference:.2f}. "
        "It takes the cells for independent, which those with the same data are not",
        f"Not told apart by it: {'; '.join(groups) or 'none'}",
    ]


def _between(block: Block, ranks: Sequence[float], low: float, high: float) -> str:
    own = sorted((rank, name) for rank, name in zip(ranks, block.names, strict=True) if low <= rank <= high)
    return ", ".join(name for _, name in own)


def _table(block: Block) -> Table:
    of_rows = overall(block)
    rows = sorted(
        zip(block.names, block.routers, of_rows, strict=True),
        key=lambda one: order_of(one[1], one[2].iqm.value if one[2].iqm else math.nan, one[0]),
    )
    lines = [Line([Cell(name), *_cells(row)]) for name, _, row in rows]
    num_references = sum(router in REFERENCES for router in block.routers)
    return Table(
        _name(block), _caption(block), _columns(block), lines, num_references, _notes(block, of_rows)
    )


def _name(block: Block) -> str:
    over = "the mean of all rows" if block.twins is None else "dense"
    return f"Gain over {over} in {len(block.cells)} cells"


def _caption(block: Block) -> str:
    over = (
        "the mean of all rows of its cell, as dense is not in every cell,"
        if block.twins is None
        else "its dense twin in the same cell"
    )
    few = f"{len(block.cells)} cells are few for it: it is meant for {ENOUGH_CELLS} and more. "
    few = few if len(block.cells) < ENOUGH_CELLS else ""
    return (
        f"{evaluation_of(block.cells)}, minus {over} with the same seed, in points. IQM: the interquartile "
        f"mean, of the middle half of all cells and seeds. {few}{CAPTION}"
    )


def _columns(block: Block) -> list[Column]:
    other = "token_choice" if block.token_choice is None else block.names[block.token_choice]
    return [
        Column("router", "\nrouter"),
        Column("IQM of the gain, points", "IQM of gain\npoints"),
        Column("mean gain, points", "mean gain\npoints"),
        Column("P above dense", "P above\ndense"),
        Column(f"P above {other}", f"P above\n{other}"),
        Column("average rank", "average\nrank"),
        Column("place", "\nplace"),
        Column("kept %", "kept\n%"),
    ]


def _cells(row: Overall) -> list[Cell]:
    return [
        _gain(row.iqm),
        _gain(row.mean),
        _probability(row.over_dense),
        _probability(row.over_token_choice),
        number_cell(row.average_rank, 2),
        _place(row),
        Cell(NOTHING) if row.kept is None else number_cell(100 * row.kept, 0),
    ]


def _place(row: Overall) -> Cell:
    if row.first is None:
        return Cell(NOTHING)
    return Cell(str(row.first) if row.first == row.last else f"{row.first}-{row.last}", row.first)


def _gain(interval: Interval | None) -> Cell:
    return Cell(NOTHING) if interval is None else interval_cell(interval, 100.0, 2, "+")


def _probability(interval: Interval | None) -> Cell:
    return Cell(NOTHING) if interval is None else interval_cell(interval, 1.0, 2)


def _notes(block: Block, rows: Sequence[Overall]) -> list[str]:
    notes = rank_notes(block) + _main_cells(block, rows)
    alone = sum(own.shape[1] == 1 for own in block.scores)
    notes += [f"Cells with one seed, which add nothing to the width of an interval: {alone}"] * bool(alone)
    unused = block.seeds_unused
    notes += [f"Scores not used, as not every row of the cell has their seed: {unused}"] * bool(unused)
    return notes + _left_out(block)


def _main_cells(block: Block, rows: Sequence[Overall]) -> list[str]:
    """The rows whose mean gain is more than half of one cell, by that cell."""
    names: dict[int, list[str]] = {}
    for name, row in zip(block.names, rows, strict=True):
        if row.main_cell is not None:
            names.setdefault(row.main_cell, []).append(name)
    return [
        f"{full_title(block.cells[cell])} alone gives more than half of the mean gain of {', '.join(own)}"
        for cell, own in sorted(names.items())
    ]


def _left_out(block: Block) -> list[str]:
    """The cells that are not in the block, by what they lack."""
    reasons: dict[str, list[str]] = {}
    for board, reason in block.left_out:
        reasons.setdefault(reason, []).append(full_title(board))
    return [f"Left out, {reason}: {_some(titles)}" for reason, titles in reasons.items()]


def _some(titles: Sequence[str]) -> str:
    more = len(titles) - NAMED_CELLS
    return "; ".join([*titles[:NAMED_CELLS], *([f"and {more} more"] if more > 0 else [])])
