"""Sinkhorn Expert Choice (Liu et al. 2024)."""

from routerbench.moe.sparse import ExpertChoiceRouter
from routerbench.moe.transport_routers import SinkhornRouter


class SinkhornExpertChoice(SinkhornRouter, ExpertChoiceRouter):
    """Each expert takes its tokens by a balanced transport plan; the gates weigh the outputs."""
