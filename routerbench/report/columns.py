"""The columns of a board as people read them: percent, millions, a dash where there is no number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from routerbench.report.boards import Board, marks
from routerbench.report.rows import Cost, Row
from routerbench.stats import Estimate

NOTHING = "-"
PLUS_MINUS = " ± "
LEGEND = (
    "± is half the width of the 95 % t-interval over seeds. Minus dense: top-1 minus that of the dense twin, "
    "in points, paired by seed. The intervals are not corrected for the number of routers compared.",
    "Balanced: accuracy averaged over classes. n counts the finished runs, failed those out of memory too. "
    "Dropped: tokens that no slot holds. Costs are means over the finished runs, peak GiB is the largest; in "
    "brackets: in evaluation, where that differs.",
)


@dataclass(frozen=True)
class Column:
    """A header, the same in two short lines for the terminal, and the text of a row under it."""

    header: str
    short: str
    text: Callable[[Row], str]


def router_column(board: Board) -> Column:
    """The label of a row with its footnote signs, made of printable characters."""
    return Column("router", "\nrouter", lambda row: printable(f"{row.label} {marks(row, board)}".rstrip()))


def quality_columns() -> Sequence[Column]:
    """What a row came to: accuracies, outcomes of its runs, dropped tokens."""
    return (
        Column("top-1 %", "top-1\n%", lambda row: _estimate(row.top1, "")),
        Column("minus dense, points", "minus dense\npoints", lambda row: _estimate(row.minus_dense, "+")),
        Column("balanced %", "bal-\nanced", lambda row: _fixed(100 * row.balanced, 2)),
        Column("n", "\nn", lambda row: str(row.done)),
        Column("failed", "fail-\ned", lambda row: str(row.failed)),
        Column("diverged", "diver-\nged", lambda row: str(row.diverged)),
        Column("dropped %", "drop-\nped %", lambda row: _fixed(100 * row.dropped_fraction, 1)),
    )


def cost_columns(board: Board) -> Sequence[Column]:
    """The cost of a row; FLOPs in the unit that suits the board."""
    giga = any(row.cost.flops_per_image >= 1e9 for row in board.rows)
    unit, scale = ("GFLOP", 1e9) if giga else ("MFLOP", 1e6)
    return (
        Column("slots/token", "slots\n/tok.", lambda row: _slots(row.cost)),
        Column(f"{unit}s/image", f"{unit}\n/img", lambda row: _flops(row.cost, scale)),
        Column("params M", "params\nM", lambda row: _significant(row.cost.params_total / 1e6)),
        Column("active M", "active\nM", lambda row: _significant(row.cost.params_active / 1e6)),
        Column("images/s", "img\n/s", lambda row: _significant(row.cost.images_per_second)),
        Column("train s", "train\ns", lambda row: _significant(row.cost.train_seconds)),
        Column("peak GiB", "peak\nGiB", lambda row: _fixed(row.cost.peak_memory_gib, 2)),
    )


def printable(text: str) -> str:
    """The text with control characters spelt out, so that no name moves the cursor or ends a line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _estimate(estimate: Estimate, sign: str) -> str:
    mean = _fixed(100 * estimate.mean, 2, sign)
    half = 50 * (estimate.high - estimate.low)
    return mean if math.isnan(half) else f"{mean}{PLUS_MINUS}{half:.2f}"


def _slots(cost: Cost) -> str:
    return _both(_fixed(cost.slots_per_token, 2), _fixed(cost.slots_per_token_eval, 2))


def _flops(cost: Cost, scale: float) -> str:
    return _both(_significant(cost.flops_per_image / scale), _significant(cost.flops_per_image_eval / scale))


def _both(training: str, evaluation: str) -> str:
    """What it is in training and, in brackets, in evaluation where that is something else."""
    return training if evaluation in (training, NOTHING) else f"{training} ({evaluation})"


def _fixed(value: float, digits: int, sign: str = "") -> str:
    return NOTHING if math.isnan(value) else f"{value:{sign}.{digits}f}"


def _significant(value: float) -> str:
    """Three significant digits, or the whole number from 100 on."""
    if math.isnan(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}" if value else "0"
