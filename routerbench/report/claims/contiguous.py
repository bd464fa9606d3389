"""Claims on blocks side by side against blocks apart."""

from collections.abc import Sequence

from routerbench.report.claims.claim import Claim, Part, PublishedPart, part_of
from routerbench.report.claims.contrasts import Contrast, pairs
from routerbench.report.claims.setups import Setup, matched
from routerbench.report.published.differences import METRICS, PublishedDifference, summary
from routerbench.report.published.tables import PlacedRun, placed_runs

SOURCE = "Puigcerver et al. 2024, From Sparse to Soft Mixtures of Experts, tables 4 to 6"
ROUTERS = ("soft", "expert_choice", "token_choice")


def claims() -> list[Claim]:
    """The last blocks side by side are better than as many apart, and so under every router."""
    return [
        Claim(
            "contiguous over spread",
            "The last blocks side by side are better MoE layers than as many blocks apart.",
            SOURCE,
            "placements",
            lambda setups: [part_of("contiguous - spread", _contiguous_minus_spread(setups))],
            lambda: [PublishedPart("contiguous - spread", _published(ROUTERS))],
        ),
        Claim(
            "contiguous under every router",
            "That does not depend on the router: it holds for soft, Expert Choice and Token Choice.",
            SOURCE,
            "placements",
            lambda setups: [_part(setups, router) for router in ROUTERS],
            lambda: [PublishedPart(f"contiguous - spread, {it}", _published([it])) for it in ROUTERS],
        ),
    ]


def _part(setups: Sequence[Setup], router: str) -> Part:
    own = [setup for setup in setups if setup.router == router]
    return part_of(f"contiguous - spread, {router}", _contiguous_minus_spread(own))


def _contiguous_minus_spread(setups: Sequence[Setup]) -> list[Contrast]:
    several = [setup for setup in setups if _numbered(setup) and len(setup.blocks) > 1]
    return pairs(
        matched(several, ["placement"]),
        lambda setup: _side_by_side(setup.blocks),
        lambda setup: not _side_by_side(setup.blocks),
        lambda one, other: (len(one.blocks), one.blocks[-1]) == (len(other.blocks), other.blocks[-1]),
    )


def _numbered(setup: Setup) -> bool:
    return all(isinstance(block, int) for block in setup.blocks)


def _side_by_side(blocks: Sequence[int]) -> bool:
    return list(blocks) == list(range(blocks[0], blocks[0] + len(blocks)))


def _published(routers: Sequence[str]) -> list[PublishedDifference]:
    runs, found = placed_runs(), []
    for metric in METRICS:
        values = [
            _score(metric, one) - _score(metric, other)
            for one in runs
            for other in runs
            if one.router == other.router and one.router in routers and _twins(one.blocks, other.blocks)
        ]
        found += summary(metric, values, "Puigcerver et al. 2024, tables 4 to 6")
    return found


def _twins(one: Sequence[int], other: Sequence[int]) -> bool:
    same = (len(one), one[-1]) == (len(other), other[-1])
    return same and len(one) > 1 and _side_by_side(one) and not _side_by_side(other)


def _score(metric: str, row: PlacedRun) -> float:
    return row.imagenet_10shot if metric == METRICS[0] else row.jft_precision_at_1
