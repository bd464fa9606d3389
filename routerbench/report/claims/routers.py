"""Claims on routers at equal slots or equal compute."""

from collections.abc import Sequence

from routerbench.report.claims.claim import Claim, Part, PublishedPart, nothing_published, part_of
from routerbench.report.claims.contrasts import Contrast, mean_of, minus, pairs
from routerbench.report.claims.setups import Setup, equal_compute, equal_slots, matched, of
from routerbench.report.published.differences import published_difference, soft_minus_sparse

LIU = "Liu et al. 2024, Routers in Vision Mixture of Experts, abstract"
SOFT_MOE = "Puigcerver et al. 2024, From Sparse to Soft Mixtures of Experts, table 9"
# Slots are compared as they came out: a factor of one router is not that of another.
ABOUT = ("router", "capacity_factor")
SPARSE = (
    "token_choice",
    "sinkhorn_token_choice",
    "expert_choice",
    "sinkhorn_expert_choice",
    "sparse_expert_choice",
)


def claims() -> list[Claim]:
    """Expert Choice over Token Choice, soft over sparse, and the order of the three."""
    return [
        Claim(
            "expert over token choice",
            "With softmax gates, Expert Choice is better than Token Choice at equal slots per token.",
            LIU,
            "routers",
            lambda setups: [_router_part(setups, "expert_choice", "token_choice")],
            lambda: [_published("expert_choice", "token_choice")],
        ),
        Claim(
            "expert over token choice, Sinkhorn",
            "With Sinkhorn plans, Expert Choice is better than Token Choice at equal slots per token.",
            LIU,
            "routers",
            lambda setups: [_router_part(setups, "sinkhorn_expert_choice", "sinkhorn_token_choice")],
            nothing_published,
        ),
        Claim(
            "soft over sparse",
            "Soft MoE is better than the mean of the sparse routers at equal FLOPs per image.",
            LIU,
            "routers",
            lambda setups: [part_of("soft - mean of sparse", _soft_minus_sparse(setups))],
            lambda: [PublishedPart("soft - mean of sparse", soft_minus_sparse())],
        ),
        Claim(
            "order at equal slots",
            "At equal slots per token the order is soft, Expert Choice, Token Choice.",
            f"{SOFT_MOE}; {LIU}",
            "routers",
            lambda setups: [_router_part(setups, *step) for step in STEPS],
            lambda: [_published(*step) for step in STEPS],
        ),
    ]


STEPS = (("soft", "expert_choice"), ("expert_choice", "token_choice"))


def _router_part(setups: Sequence[Setup], high: str, low: str) -> Part:
    groups = matched(of(setups, lambda setup: setup.router in (high, low)), ABOUT)
    found = pairs(groups, lambda setup: setup.router == high, lambda setup: setup.router == low, equal_slots)
    return part_of(f"{high} - {low}", found)


def _published(high: str, low: str) -> PublishedPart:
    return PublishedPart(f"{high} - {low}", published_difference(high, low))


def _soft_minus_sparse(setups: Sequence[Setup]) -> list[Contrast]:
    groups = matched(of(setups, lambda setup: setup.router in ("soft", *SPARSE)), ABOUT)
    found = [_against_sparse(soft, group) for group in groups for soft in group if soft.router == "soft"]
    return [contrast for contrast in found if contrast is not None]


def _against_sparse(soft: Setup, group: Sequence[Setup]) -> Contrast | None:
    """Soft minus the mean over sparse routers of the mean over a router's setups, at equal compute."""
    rivals = of(group, lambda setup: setup.router != "soft" and equal_compute(soft, setup))
    by_router = {router: [setup for setup in rivals if setup.router == router] for router in SPARSE}
    means = [mean_of([minus(soft, setup) for setup in own]) for own in by_router.values() if own]
    return mean_of(means) if means else None
