"""The rows of the published tables, each table a file beside this one; README.md says where they are from."""

import csv
from dataclasses import dataclass, fields
from importlib.resources import files
from types import UnionType
from typing import Any, NewType, TypeVar, get_args, get_type_hints

Accuracy = NewType("Accuracy", float)  # in [0, 1], printed in percent
Row = TypeVar("Row")


@dataclass(frozen=True)
class SoftMoeRun:
    """A run of 300,000 steps on JFT (Puigcerver et al. 2024, table 9)."""

    row: int
    backbone: str
    router: str
    num_experts: int | None
    group_size_tokens: int | None
    k: int | None
    capacity_factor: float | None
    jft_precision_at_1: Accuracy
    imagenet_10shot: Accuracy
    train_exaflop: float
    tpuv3_days: float


@dataclass(frozen=True)
class PriorityRun:
    """Token Choice with or without Batch Priority (Puigcerver et al. 2024, table 7)."""

    backbone: str
    num_experts: int
    k: int
    batch_priority: bool
    jft_precision_at_1: Accuracy
    imagenet_10shot: Accuracy


@dataclass(frozen=True)
class PlacedRun:
    """The same number of experts in some of 12 blocks (Puigcerver et al. 2024, tables 4 to 6)."""

    backbone: str
    total_experts: int
    moe_blocks: str
    router: str
    imagenet_10shot: Accuracy
    jft_precision_at_1: Accuracy

    @property
    def blocks(self) -> list[int]:
        return [int(block) for block in self.moe_blocks.split()]


@dataclass(frozen=True)
class ImageNetModel:
    """A model trained on ImageNet-1k, dense where it has no experts (Videau et al. 2025, table 1)."""

    backbone: str
    num_experts: int
    placement: str
    k: int | None
    params_m: float
    active_params_m: float
    gflops: float
    v100_images_per_s: float
    imagenet1k_top1: Accuracy


@dataclass(frozen=True)
class PretrainedModel:
    """A model trained on ImageNet-21k, dense where it has no experts (Videau et al. 2025, table 2)."""

    backbone: str
    num_experts: int
    placement: str
    k: int | None
    params_m: float
    active_params_m: float
    gflops: float
    finetune_top1: Accuracy
    linear_probe_top1: Accuracy
    zero_shot_top1: Accuracy


@dataclass(frozen=True)
class PlacedModel:
    """The MoE layers in some of the blocks of a model, "none": dense (Videau et al. 2025, table 3)."""

    backbone: str
    num_experts: int
    placement: str
    params_m: float
    active_params_m: float
    imagenet1k_top1: Accuracy


@dataclass(frozen=True)
class CountedModel:
    """A number of experts in the last two places, 0: dense (Videau et al. 2025, tables 4 and 6)."""

    backbone: str
    pretraining: str
    num_experts: int
    k: int | None
    imagenet1k_top1: Accuracy


@dataclass(frozen=True)
class GatedModel:
    """A gate of the MoE layers in the last two places, or "no MoE" (Videau et al. 2025, table 7)."""

    backbone: str
    gate: str
    imagenet1k: Accuracy
    imagenet_v2: Accuracy
    imagenet_a: Accuracy
    imagenet_r: Accuracy
    imagenet_sketch: Accuracy


def soft_moe_runs() -> list[SoftMoeRun]:
    """107 runs on JFT, dense and by router."""
    return _rows("soft_moe_table9.csv", SoftMoeRun)


def priority_runs() -> list[PriorityRun]:
    """Token Choice with 32 and 64 experts, k = 1 and 2."""
    return _rows("soft_moe_table7_bpr.csv", PriorityRun)


def placed_runs() -> list[PlacedRun]:
    """Eight placements of 512 experts, by router."""
    return _rows("soft_moe_tables4_6_placement.csv", PlacedRun)


def imagenet_models() -> list[ImageNetModel]:
    """15 models trained on ImageNet-1k."""
    return _rows("sweet_spot_table1_imagenet1k.csv", ImageNetModel)


def pretrained_models() -> list[PretrainedModel]:
    """Ten models trained on ImageNet-21k."""
    return _rows("sweet_spot_table2_imagenet21k.csv", PretrainedModel)


def placed_models() -> list[PlacedModel]:
    """Three backbones by placement."""
    return _rows("sweet_spot_table3_placement.csv", PlacedModel)


def counted_models() -> list[CountedModel]:
    """Two backbones by number of experts."""
    return _rows("sweet_spot_tables4_6_experts.csv", CountedModel)


def gated_models() -> list[GatedModel]:
    """Three backbones by gate."""
    return _rows("sweet_spot_table7_gates.csv", GatedModel)


def _rows(file: str, kind: type[Row]) -> list[Row]:
    """The lines of a file as rows of this kind, whose fields are its columns in their order."""
    hints = get_type_hints(kind)
    lines = csv.reader((files("routerbench.report.published") / file).read_text("utf-8").splitlines())
    assert next(lines) == [field.name for field in fields(kind)], file  # pyright: ignore[reportArgumentType]
    return [kind(*(_value(*pair) for pair in zip(line, hints.values(), strict=True))) for line in lines]


def _value(text: str, hint: Any) -> Any:
    """An empty text is None where there may be no value."""
    if isinstance(hint, UnionType):
        return _value(text, get_args(hint)[0]) if text else None
    if hint is Accuracy:
        return float(text) / 100
    return bool(int(text)) if hint is bool else hint(text)
