"""The claim on the number of experts that a token takes."""

from collections.abc import Sequence
from itertools import pairwise

from routerbench.report.claims.claim import Claim, nothing_published, part_of
from routerbench.report.claims.contrasts import Contrast, added, minus
from routerbench.report.claims.setups import Setup, matched, of


def claims() -> list[Claim]:
    """Each further choice gives less."""
    return [
        Claim(
            "less from each further choice",
            "All else equal, more FLOPs per image by k help, and less and less (k = 1, 2, 4).",
            "Puigcerver et al. 2024, From Sparse to Soft Mixtures of Experts, figure 6 (slots per token)",
            "experts",
            lambda setups: [
                part_of("k = 2 - k = 1", _first_steps(setups)),
                part_of("that - k = 4 over 2, per FLOP", _bends(setups)),
            ],
            nothing_published,
        )
    ]


def _first_steps(setups: Sequence[Setup]) -> list[Contrast]:
    """Two choices minus one, where that costs more."""
    return [minus(by_k[2], by_k[1]) for by_k in _by_choices(setups, (1, 2))]


def _bends(setups: Sequence[Setup]) -> list[Contrast]:
    """The first step minus the second, which is scaled to the FLOPs of the first."""
    return [
        added(
            [
                minus(by_k[2], by_k[1]),
                minus(by_k[4], by_k[2]).scaled(-_flops(by_k, 1, 2) / _flops(by_k, 2, 4)),
            ]
        )
        for by_k in _by_choices(setups, (1, 2, 4))
    ]


def _by_choices(setups: Sequence[Setup], wanted: Sequence[int]) -> list[dict[int, Setup]]:
    """Setups by k that are equal in all else, where each further k of these costs more."""
    groups = matched(of(setups, lambda setup: setup.get("router.top_k") in wanted), ["router.top_k"])
    found = [{setup.get("router.top_k"): setup for setup in group} for group in groups]
    steps = list(pairwise(wanted))
    whole = [by_k for by_k in found if len(by_k) == len(wanted)]
    return [by_k for by_k in whole if all(_flops(by_k, *step) > 0 for step in steps)]


def _flops(by_k: dict[int, Setup], low: int, high: int) -> float:
    return by_k[high].cost("flops_per_image") - by_k[low].cost("flops_per_image")
