"""The claim on large and small models."""

from collections.abc import Sequence

from routerbench.report.boards.cells import belongs, without
from routerbench.report.claims.claim import Claim, PublishedPart, part_of
from routerbench.report.claims.contrasts import Contrast, added, pairs
from routerbench.report.claims.setups import Setup, of, with_dense
from routerbench.report.published.differences import PublishedDifference, summary
from routerbench.report.published.tables import ImageNetModel, imagenet_models
from routerbench.report.runs.run import key_of

SOURCE = "Videau et al. 2025, Mixture of Experts in Image Classification: What's the Sweet Spot?"
PART = "gain of the smallest - of the largest"


def claims() -> list[Claim]:
    """Small models gain most."""
    return [
        Claim(
            "small models gain most",
            "The gain of MoE over dense is larger for the smallest than for the largest model of a kind.",
            f"{SOURCE}, table 1, figure 4",
            "scales",
            lambda setups: [part_of(PART, _small_over_large(setups))],
            lambda: [PublishedPart(PART, _published())],
        )
    ]


def _small_over_large(setups: Sequence[Setup]) -> list[Contrast]:
    """Of models trained from scratch."""
    scratch = of(setups, lambda setup: setup.get("model.weights") is None)
    found = []
    for group in with_dense(scratch, ["model"]):
        for kind in sorted({setup.kind for setup in group if setup.kind}):
            found += _ends([setup for setup in group if setup.kind == kind])
    return found


def _ends(group: Sequence[Setup]) -> list[Contrast]:
    """The gains of the model of fewest FLOPs minus those of most, each MoE with its equal."""
    gains: dict[tuple[float, str], list[Contrast]] = {}  # by the dense model's FLOPs per image and settings
    for gain in pairs([group], lambda setup: not setup.dense, lambda setup: setup.dense, _same_model):
        dense = gain.terms[1][1]
        gains.setdefault((dense.cost("flops_per_image"), _model_of(dense)), []).append(gain)
    small, large = min(gains, default=None), max(gains, default=None)
    if small is None or large is None or not small[0] < large[0]:
        return []
    return [added([a, b.scaled(-1.0)]) for a in gains[small] for b in gains[large] if _same_moe(a, b)]


def _same_model(moe: Setup, dense: Setup) -> bool:
    return _model_of(moe) == _model_of(dense)


def _model_of(setup: Setup) -> str:
    return key_of({name: value for name, value in setup.settings.items() if belongs(name, ["model"])})


def _same_moe(a: Contrast, b: Contrast) -> bool:
    one, other = (without(gain.terms[0][1].settings, ["model"]) for gain in (a, b))
    return one == other


def _published() -> list[PublishedDifference]:
    """Of the models of table 1 by kind: the smallest and the largest with the same MoE."""
    models = imagenet_models()
    kinds = [[model for model in models if _kind(model) == kind] for kind in sorted({*map(_kind, models)})]
    differences = [_gain_of_ends(kind) for kind in kinds]
    return summary("ImageNet-1k top-1", differences, "Videau et al. 2025, table 1")


def _gain_of_ends(models: Sequence[ImageNetModel]) -> float:
    dense = {model.backbone: model for model in models if not model.num_experts}
    large = max(dense.values(), key=lambda model: model.gflops).backbone
    small = min(dense.values(), key=lambda model: model.gflops).backbone
    gains = {
        (model.backbone, model.placement): model.imagenet1k_top1 - dense[model.backbone].imagenet1k_top1
        for model in models
        if model.num_experts
    }
    (placement,) = (where for backbone, where in gains if backbone == large)
    return gains[small, placement] - gains[large, placement]


def _kind(model: ImageNetModel) -> str:
    return f"{model.backbone.partition('-')[0]}{' iso' if model.backbone.endswith('iso') else ''}"
