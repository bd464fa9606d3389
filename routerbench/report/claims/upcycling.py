"""Claims on experts that start as copies of a trained MLP."""

from collections.abc import Sequence

from routerbench.report.claims.claim import Claim, nothing_published, part_of
from routerbench.report.claims.contrasts import Contrast, pairs
from routerbench.report.claims.setups import Setup, matched, of, with_dense

SOURCE = "Komatsuzaki et al. 2023, Sparse Upcycling"
START = ("expert_init", "model.weights", "model.new_head", "model.resize")


def claims() -> list[Claim]:
    """Upcycling is better than going on dense, and than starting anew."""
    return [
        Claim(
            "upcycling over dense",
            "From the same dense weights and for as many epochs, upcycled training is better than dense.",
            SOURCE,
            "upcycling",
            lambda setups: [part_of("upcycled - dense, same weights", _over_dense(setups))],
            nothing_published,
        ),
        Claim(
            "upcycling over a new start",
            "For as many further epochs, upcycled experts are better than the same MoE trained from scratch.",
            SOURCE,
            "upcycling",
            lambda setups: [part_of("upcycled - from scratch", _over_scratch(setups))],
            nothing_published,
        ),
    ]


def _over_dense(setups: Sequence[Setup]) -> list[Contrast]:
    started = of(setups, lambda setup: setup.get("model.weights") is not None)
    return pairs(with_dense(started), _upcycled, lambda setup: setup.dense)


def _over_scratch(setups: Sequence[Setup]) -> list[Contrast]:
    sparse = of(setups, lambda setup: not setup.dense)
    return pairs(matched(sparse, START), _upcycled, lambda setup: setup.get("model.weights") is None)


def _upcycled(setup: Setup) -> bool:
    return not setup.dense and setup.get("expert_init") == "upcycle"
