"""Claims on which blocks are MoE layers."""

from collections.abc import Callable, Sequence

from routerbench.report.claims.claim import Claim, Part, PublishedPart, part_of
from routerbench.report.claims.contrasts import pairs
from routerbench.report.claims.setups import Setup, matched, of, with_dense
from routerbench.report.published.differences import summary
from routerbench.report.published.tables import imagenet_models, placed_models

SOURCE = "Videau et al. 2025, Mixture of Experts in Image Classification: What's the Sweet Spot?"
TABLE = "Videau et al. 2025, table"
TOP1 = "ImageNet-1k top-1"
PLACEMENT = ("placement",)


def claims() -> list[Claim]:
    """Last 2 is robust; Every 2 is slightly better for ViT."""
    return [
        Claim(
            "last_2 robust",
            "On every backbone tested, MoE layers in the last two places are at least as good as dense and "
            "as any other placement.",
            f"{SOURCE}, tables 3 and 5, conclusion",
            "placements",
            _last_2_parts,
            _published_last_2,
            at_least_as_good=True,
        ),
        Claim(
            "every_2 over last_2 for ViT",
            "For ViT, MoE layers in every second block are slightly better than in the last two places.",
            f"{SOURCE}, tables 1 and 3",
            "placements",
            lambda setups: [_placed("every_2 - last_2, ViT", _vits(setups), "every_2", "last_2")],
            lambda: [PublishedPart("every_2 - last_2, ViT-S", summary(TOP1, [_every_2()], f"{TABLE} 1"))],
        ),
    ]


def _last_2_parts(setups: Sequence[Setup]) -> list[Part]:
    """A part for each backbone and each rival: dense, and every placement that has a name or is a list."""
    parts = []
    for model in sorted({str(setup.get("model.name")) for setup in setups}):
        own = [setup for setup in setups if str(setup.get("model.name")) == model]
        placements = {str(setup.get("placement")) for setup in own if not setup.dense}
        others = [
            _placed(f"last_2 - {other}, {model}", own, "last_2", other)
            for other in sorted(placements - {"last_2"})
        ]
        dense = pairs(with_dense(own), _at("last_2"), lambda setup: setup.dense)
        parts += [part_of(f"last_2 - dense, {model}", dense), *others]
    return [part for part in parts if part.differences]


def _placed(name: str, setups: Sequence[Setup], high: str, low: str) -> Part:
    sparse = of(setups, lambda setup: _at(high)(setup) or _at(low)(setup))
    return part_of(name, pairs(matched(sparse, PLACEMENT), _at(high), _at(low), _unlike))


def _unlike(one: Setup, other: Setup) -> bool:
    """Whether they are not the same blocks under two names."""
    return not one.blocks or one.blocks != other.blocks


def _at(placement: str) -> Callable[[Setup], bool]:
    return lambda setup: not setup.dense and str(setup.get("placement")) == placement


def _vits(setups: Sequence[Setup]) -> list[Setup]:
    return of(setups, lambda setup: setup.kind == "ViT")


def _published_last_2() -> list[PublishedPart]:
    """By backbone of table 3, last_2 minus the dense model and minus each other placement."""
    scores = {(row.backbone, row.placement): row.imagenet1k_top1 for row in placed_models()}
    return [
        PublishedPart(
            f"last_2 - {'dense' if placement == 'none' else placement}, {backbone}",
            summary(TOP1, [scores[backbone, "last_2"] - score], f"{TABLE} 3"),
        )
        for (backbone, placement), score in scores.items()
        if placement != "last_2"
    ]


def _every_2() -> float:
    scores = {row.placement: row.imagenet1k_top1 for row in imagenet_models() if row.backbone == "ViT-S"}
    return scores["every_2"] - scores["last_2"]
