"""How many seeds are needed, in words."""

from collections.abc import Iterator, Sequence

from routerbench.overview.detect import CONFIDENCE, POWER, Comparison, Needed
from routerbench.stats import MOST_SEEDS


def detect_lines(found: Sequence[Comparison], points: float) -> Iterator[str]:
    """Two or three lines for each comparison."""
    yield f"seeds that tell {points:g} points of top-1 (power {POWER:g}, after correction for all pairs):"
    for one in found:
        yield from _comparison(one)


def _comparison(one: Comparison) -> Iterator[str]:
    if one.spread is None or one.of_all is None or one.of_report is None:
        yield f"  {one.title}: no pilot, which is two seeds of two configurations that are done"
        return
    yield (
        f"  {one.title}: standard deviation of differences paired by seed {100 * one.spread.deviation:.2g} "
        f"points, by {one.spread.num_scores} runs ({one.spread.freedom} degrees of freedom)"
    )
    board = f"the {one.of_report.num_pairs} of a board, against dense and a reference"
    yield f"    all {one.of_all.num_pairs} pairs of {one.num_rows} configurations: {_needed(one.of_all)}"
    yield f"    {board}: {_needed(one.of_report)}"


def _needed(needed: Needed) -> str:
    upper = f"{_seeds(needed.upper)} by the upper {CONFIDENCE:.0%} limit of that deviation"
    return f"{_seeds(needed.seeds)} seeds, {upper}"


def _seeds(number: int | None) -> str:
    return f"more than {MOST_SEEDS}" if number is None else str(number)
