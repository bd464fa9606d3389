"""Boards -> CSV in full precision, for further work on the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from routerbench.report.boards import Board
from routerbench.report.rows import Row
from routerbench.report.runs import text_of


def csv(boards: Sequence[Board]) -> str:
    """One line for each row of each board: accuracies and fractions in [0, 1], empty where no run tells."""
    lines = [_line(number, board, row) for number, board in enumerate(boards, 1) for row in board.rows]
    measured = [name for name in lines[0] if "." not in name]
    origins = sorted({name for line in lines for name in line} - set(measured))
    return pd.DataFrame(lines, columns=[*measured, *origins], dtype=object).to_csv(
        index=False, lineterminator="\n"
    )


def _line(number: int, board: Board, row: Row) -> Mapping[str, Any]:
    """All of a row; a dense row stands once on each board that it joins."""
    return {
        "board": number,
        "title": board.title,
        "router": row.label,
        **{f"top1_{name}": value for name, value in asdict(row.top1).items()},
        **{f"minus_dense_{name}": value for name, value in asdict(row.minus_dense).items()},
        "balanced_mean": row.balanced,
        **{name: getattr(row, name) for name in ("done", "failed", "oom", "diverged")},
        "dropped_fraction": row.dropped_fraction,
        **asdict(row.cost),
        **{f"provenance.{name}": "; ".join(values) for name, values in row.origins.items()},
        **{f"config.{name}": text_of(value) for name, value in row.settings.items()},
    }
