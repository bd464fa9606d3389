"""All claims of the studies, in the order of the table."""

from routerbench.report.claims import (
    choices,
    contiguous,
    data_experts,
    gates,
    placements,
    priority,
    routers,
    scales,
    upcycling,
)
from routerbench.report.claims.claim import Claim


def all_claims() -> list[Claim]:
    """Routers first, then what stands around them."""
    parts = (routers, priority, placements, contiguous, gates, scales, data_experts, choices, upcycling)
    return [claim for part in parts for claim in part.claims()]
