"""The claim on gates."""

from collections.abc import Sequence

from routerbench.report.claims.claim import Claim, Part, PublishedPart, part_of
from routerbench.report.claims.contrasts import pairs
from routerbench.report.claims.setups import Setup, matched, of
from routerbench.report.published.differences import summary
from routerbench.report.published.tables import gated_models

SOURCE = "Videau et al. 2025, Mixture of Experts in Image Classification: What's the Sweet Spot?, table 7"
SCORER = "router.scorer"
ABOUT = (SCORER, "router.projection_width", "router.temperature")
OTHERS = ("cosine", "l2")


def claims() -> list[Claim]:
    """A linear gate is enough."""
    return [
        Claim(
            "linear gate",
            "A linear gate is at least as good as one by cosine and one by L2 distance.",
            SOURCE,
            "gates",
            lambda setups: [_part(setups, other) for other in OTHERS],
            lambda: [_published(other) for other in OTHERS],
            at_least_as_good=True,
        )
    ]


def _part(setups: Sequence[Setup], other: str) -> Part:
    groups = matched(of(setups, lambda setup: setup.get(SCORER) in ("linear", other)), ABOUT)
    found = pairs(
        groups, lambda setup: setup.get(SCORER) == "linear", lambda setup: setup.get(SCORER) == other
    )
    return part_of(f"linear - {other}", found)


def _published(other: str) -> PublishedPart:
    scores = {(row.backbone, row.gate): row.imagenet1k for row in gated_models()}
    differences = [
        scores[backbone, "linear"] - score for (backbone, gate), score in scores.items() if gate == other
    ]
    return PublishedPart(
        f"linear - {other}", summary("ImageNet-1k top-1", differences, "Videau et al. 2025, table 7")
    )
