"""What a paper prints for the configuration of a row."""

import re
from dataclasses import dataclass

from routerbench.report.published.tables import counted_models, imagenet_models, placed_models
from routerbench.report.runs.metric import TOP1
from routerbench.report.runs.run import Settings

PAPER = "Videau et al. 2025"
BACKBONES = {
    "vit_small_patch16_224": "ViT-S",
    "vit_base_patch16_224": "ViT-B",
    "convnext_tiny": "ConvNeXt-T",
    "convnext_small": "ConvNeXt-S",
    "convnext_base": "ConvNeXt-B",
    "convnext_iso_small": "ConvNeXt-S iso",
    "convnext_iso_base": "ConvNeXt-B iso",
}
IMAGENET_1K = re.compile(r"(imagenet|ilsvrc)[-_]?(1k|2012|2012[-_]1k|1k[-_]wds)?", re.IGNORECASE)
TRAINING = {"epochs": 300, "data.image_size": 224, "model.weights": None}  # of all models of these tables


@dataclass(frozen=True)
class PublishedScore:
    """An accuracy in [0, 1], and the paper and table that print it."""

    score: float
    source: str


def published_score(settings: Settings, metric: str) -> PublishedScore | None:
    """What is printed for a row with these settings ("router.name", "optim.lr", ...), None where nothing is.

    Dense models and linear Token Choice, trained on the whole of ImageNet-1k at 224 pixels for 300 epochs:
    top-1 of Videau et al. 2025, tables 1, 3 and 4. A recipe may differ from theirs in what they do not print.
    """
    backbone = BACKBONES.get(str(settings.get("model.name")))
    if metric != TOP1 or backbone is None or not _trained_alike(settings):
        return None
    if settings.get("router.name") == "dense":
        return _dense(backbone)
    return _sparse(backbone, settings) if _routed_alike(backbone, settings) else None


def _trained_alike(settings: Settings) -> bool:
    path, whole = str(settings.get("data.path") or ""), settings.get("data.train_split", "train")
    names = [str(settings.get("data.name")), *path.split("/")]
    alike = all(settings.get(name) == value for name, value in TRAINING.items())
    return alike and whole == "train" and any(IMAGENET_1K.fullmatch(name) for name in names)


def _routed_alike(backbone: str, settings: Settings) -> bool:
    """Their experts are half as wide as the MLP in a ConvNeXt with stages, and as wide elsewhere."""
    staged = "ConvNeXt" in backbone and "iso" not in backbone
    width = settings.get("expert_mlp_ratio")
    linear_token_choice = (
        settings.get("router.name") == "token_choice" and settings.get("router.scorer", "linear") == "linear"
    )
    return linear_token_choice and (width == 2 if staged else width in (None, 4))


def _dense(backbone: str) -> PublishedScore | None:
    scores = [
        row.imagenet1k_top1 for row in imagenet_models() if (row.backbone, row.num_experts) == (backbone, 0)
    ]
    return PublishedScore(scores[0], f"{PAPER}, table 1") if scores else None


def _sparse(backbone: str, settings: Settings) -> PublishedScore | None:
    placement, num_experts, k = (settings.get(name) for name in ("placement", "num_experts", "router.top_k"))
    usual_k = 2 if backbone.startswith("ViT") else 1  # of table 3, which does not print it
    printed = [
        (row.backbone, row.placement, row.num_experts, row.k, row.imagenet1k_top1, 1)
        for row in imagenet_models()
    ]
    printed += [
        (row.backbone, row.placement, row.num_experts, usual_k, row.imagenet1k_top1, 3)
        for row in placed_models()
    ]
    printed += [
        (row.backbone, "last_2", row.num_experts, row.k, row.imagenet1k_top1, 4)
        for row in counted_models()
        if row.pretraining == "imagenet1k"
    ]
    for *configuration, score, table in printed:
        if configuration == [backbone, placement, num_experts, k]:
            return PublishedScore(score, f"{PAPER}, table {table}")
    return None
