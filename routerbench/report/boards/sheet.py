"""Boards -> CSV in full precision, for further work on the numbers."""

import io
import math
from collections.abc import Mapping, Sequence
from csv import DictWriter
from dataclasses import asdict
from typing import Any

from routerbench.report.boards.board import Board
from routerbench.report.boards.evaluated import NMI, sensitivity_of, specialisation
from routerbench.report.boards.rows import Row
from routerbench.report.runs.run import text_of


def csv(boards: Sequence[Board]) -> str:
    """One line for each row of each board: accuracies and fractions in [0, 1], empty where no run tells."""
    lines = [
        _line(number, board, place)
        for number, board in enumerate(boards, 1)
        for place in range(len(board.rows))
    ]
    measured = list(dict.fromkeys(name for line in lines for name in line if "." not in name))
    origins = sorted({name for line in lines for name in line} - set(measured))
    text = io.StringIO()
    writer = DictWriter(text, [*measured, *origins], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: value for name, value in line.items() if not _is_nan(value)} for line in lines)
    return text.getvalue()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _line(number: int, board: Board, place: int) -> Mapping[str, Any]:
    """All of a row; a dense row stands once on each board that it joins."""
    row, pair = board.rows[place], board.against_dense(place)
    difference = asdict(pair.difference) if pair else dict.fromkeys(("mean", "low", "high"), None) | {"n": 0}
    first, last = board.pairs.ranks[place]
    return {
        "board": number,
        "title": board.name,
        "router": row.label,
        "metric": board.metric.name,
        **{f"score_{name}": value for name, value in asdict(row.score).items()},
        "scores": "; ".join(f"{seed}: {score}" for seed, score in sorted(row.scores.items())),
        "first_rank": first if row.scores else None,
        "last_rank": last if row.scores else None,
        **{f"minus_dense_{name}": value for name, value in difference.items()},
        "minus_dense_p": pair.p if pair else None,
        "minus_dense_verdict": pair.verdict if pair else None,
        "balanced_mean": row.balanced,
        **{name: getattr(row, name) for name in ("done", "failed", "oom", "diverged")},
        "dropped_fraction": row.dropped_fraction,
        **asdict(row.cost),
        **_found_after(row),
        **{f"provenance.{name}": "; ".join(values) for name, values in row.origins.items()},
        **{f"config.{name}": text_of(value) for name, value in row.settings.items()},
    }


def _found_after(row: Row) -> Mapping[str, Any]:
    """What was found after training, as far as it was looked for."""
    shares = {what: specialisation(row, what) for what in NMI}
    found: dict[str, Any] = {
        f"{what}_nmi_{name}": value
        for what, share in shares.items()
        if share.n
        for name, value in asdict(share).items()
    }
    sensitivity = sensitivity_of(row)
    return found if sensitivity is None else found | {"sensitivity_points": sensitivity.points}
