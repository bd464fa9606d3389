"""Sinkhorn Token Choice (S-BASE, Clark et al. 2022; Liu et al. 2024)."""

from routerbench.moe.sparse import TokenChoiceRouter
from routerbench.moe.transport_routers import SinkhornRouter


class SinkhornTokenChoice(SinkhornRouter, TokenChoiceRouter):
    """Each token takes its `top_k` experts by a balanced transport plan; the gates weigh the outputs."""
