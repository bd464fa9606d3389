"""Boards -> a complete block: configurations that stand in the same cells, with the same seeds in each."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from routerbench.report.across.configurations import dense_twin, names_of, plainest, rows_by_configuration
from routerbench.report.across.scale_curves import TOKEN_CHOICE
from routerbench.report.boards.board import Board
from routerbench.report.boards.cells import DENSE
from routerbench.report.boards.rows import Row

MOST_SETS = 60  # of configurations whose intersections are tried, the commonest first
MOST_BLOCKS = 20  # whose seeds are counted, the largest first

Rows = Mapping[str, Row]


@dataclass(frozen=True, eq=False)
class Block:
    """Scores of `names` in each of `cells`: arrays (rows, seeds), over the seeds that all rows have there.

    `twins`: the place of each row's dense twin, a dense row's own place, None if one has none here;
    `token_choice`: the place of plain Token Choice, None if it is not here; `shared`: equal for cells whose
    dense runs are the same ones, and so no two replications.
    """

    names: Sequence[str]
    routers: Sequence[str]
    twins: Sequence[int] | None
    token_choice: int | None
    cells: Sequence[Board]
    scores: Sequence[np.ndarray]
    shared: Sequence[Hashable]
    left_out: Sequence[tuple[Board, str]]
    seeds_unused: int

    @property
    def means(self) -> np.ndarray:
        """The mean scores, (cells, rows)."""
        return np.stack([own.mean(axis=1) for own in self.scores])


def block_of(boards: Sequence[Board]) -> Block | None:
    """The block that uses most scores, of two rows and two cells at least; None where there is none."""
    rows = [{key: row for key, row in rows_by_configuration(board).items() if row.scores} for board in boards]
    chosen = _chosen(rows)
    if chosen is None:
        return None
    places = [place for place, own in enumerate(rows) if _common_seeds(chosen, own)]
    names = names_of(chosen, boards[0].by)
    keys = sorted(chosen, key=lambda key: names[key])
    seeds = [_common_seeds(keys, rows[place]) for place in places]
    routers = [rows[places[0]][key].router for key in keys]
    left_out = [place for place in range(len(boards)) if place not in places]
    return Block(
        names=[names[key] for key in keys],
        routers=routers,
        twins=_twins(keys),
        token_choice=_token_choice(keys, routers, boards[0].by),
        cells=[boards[place] for place in places],
        scores=[_scores(keys, rows[place], own) for place, own in zip(places, seeds, strict=True)],
        shared=[_shared(keys, rows[place], place) for place in places],
        left_out=[(boards[place], _reason(keys, names, rows[place])) for place in left_out],
        seeds_unused=sum(_unused(keys, rows[place], own) for place, own in zip(places, seeds, strict=True)),
    )


def _twins(keys: Sequence[str]) -> list[int] | None:
    twins = [dense_twin(key) for key in keys]
    return [keys.index(twin) for twin in twins] if set(twins) <= set(keys) else None


def _token_choice(keys: Sequence[str], routers: Sequence[str], by: Sequence[str]) -> int | None:
    own = [key for key, one in zip(keys, routers, strict=True) if one == TOKEN_CHOICE]
    return keys.index(plainest(own, by)) if own else None


def _chosen(rows: Sequence[Rows]) -> Sequence[str] | None:
    """The configurations that, in all cells that have them, come to the largest number of scores."""
    number = {key: bit for bit, key in enumerate(sorted({key for own in rows for key in own}))}
    sets = Counter(sum(1 << number[key] for key in own) for own in rows)
    common = sorted(sets, key=lambda one: (-sets[one], -one.bit_count(), one))[:MOST_SETS]
    tried = {*common, *(one & other for one, other in combinations(common, 2))}
    large = sorted(
        (one for one in tried if one.bit_count() >= 2),
        key=lambda one: (-one.bit_count() * sum(sets[other] for other in sets if one & other == one), one),
    )
    best: tuple[int, Sequence[str] | None] = (0, None)
    for one in large[:MOST_BLOCKS]:
        keys = [key for key, bit in number.items() if one >> bit & 1]
        seeds = [len(own) for cell in rows if (own := _common_seeds(keys, cell))]
        if len(seeds) >= 2 and len(keys) * sum(seeds) > best[0]:
            best = len(keys) * sum(seeds), keys
    return best[1]


def _common_seeds(keys: Sequence[str], rows: Rows) -> list[int]:
    """The seeds that all these configurations have in a cell, none where one of them is missing."""
    if any(key not in rows for key in keys):
        return []
    return sorted(set.intersection(*(set(rows[key].scores) for key in keys)))


def _scores(keys: Sequence[str], rows: Rows, seeds: Sequence[int]) -> np.ndarray:
    return np.array([[rows[key].scores[seed] for seed in seeds] for key in keys])


def _unused(keys: Sequence[str], rows: Rows, seeds: Sequence[int]) -> int:
    return sum(len(rows[key].scores) - len(seeds) for key in keys)


def _shared(keys: Sequence[str], rows: Rows, place: int) -> Hashable:
    dense = [run["run_id"] for key in keys if rows[key].router == DENSE for run in rows[key].runs]
    return tuple(dense) if dense else place


def _reason(keys: Sequence[str], names: Mapping[str, str], rows: Rows) -> str:
    missing = [names[key] for key in keys if key not in rows]
    return f"without a score of {', '.join(missing)}" if missing else "no seed that all have"
