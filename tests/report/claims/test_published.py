"""The contrasts of the claims in the tables of the studies, against numbers typed from these."""

import re

import pytest

from routerbench.config import conf_dir
from routerbench.report.claims.catalogue import all_claims
from routerbench.report.published import PublishedDifference


def published(claim: str) -> dict[tuple[str, str], PublishedDifference]:
    (found,) = (one for one in all_claims() if one.name == claim)
    return {(part.name, one.metric): one for part in found.published() for one in part.differences}


@pytest.mark.parametrize(
    ("claim", "part", "metric", "points"),
    [
        # 68.9 - 64.5 and 69.1 - 64.4.
        ("batch priority at k = 1", "on - off at k = 1", "ImageNet 10-shot", (4.4, 4.7)),
        # The same minus 71.4 - 71.0 and 71.4 - 70.9.
        ("batch priority, k = 1 over 2", "on - off, k = 1 minus k = 2", "ImageNet 10-shot", (4.0, 4.2)),
        # 51.2 - 50.1 and 51.5 - 50.0, minus 52.8 - 52.5 and 52.9 - 52.9.
        ("batch priority, k = 1 over 2", "on - off, k = 1 minus k = 2", "JFT precision@1", (0.8, 1.5)),
        ("last_2 robust", "last_2 - dense, ConvNeXt-S iso", "ImageNet-1k top-1", (0.6,)),
        ("last_2 robust", "last_2 - every_2, ViT-S", "ImageNet-1k top-1", (-0.2,)),
        ("every_2 over last_2 for ViT", "every_2 - last_2, ViT-S", "ImageNet-1k top-1", (0.2,)),
        # Blocks 10 11 and 5 11: 71.7 - 70.4; 8-11 and 2 5 8 11: 72.8 - 71.1; 4-11 and 1-4 8-11: 72.1 - 70.5.
        ("contiguous under every router", "contiguous - spread, soft", "ImageNet 10-shot", (1.3, 1.7, 1.6)),
        # 80.3 - 79.7, 82.1 - 81.9, 80.5 - 79.7.
        ("linear gate", "linear - cosine", "ImageNet-1k top-1", (0.6, 0.2, 0.8)),
        ("linear gate", "linear - l2", "ImageNet-1k top-1", (0.1, 0.2, 0.3)),
        # ConvNeXt 0 and -0.3, isotropic 0.6 and -0.4, ViT with every_2 0.9 and -0.3.
        (
            "small models gain most",
            "gain of the smallest - of the largest",
            "ImageNet-1k top-1",
            (0.3, 1.0, 1.2),
        ),
        # From 8 to 16 experts 83.5 to 83.6 with ImageNet-21k, 82.1 to 81.7 with ImageNet-1k.
        ("more experts with more data", "per doubling, more - less data", "ImageNet-1k top-1", (0.5,)),
    ],
)
def test_published_by_hand(claim: str, part: str, metric: str, points: tuple[float, ...]) -> None:
    one = published(claim)[part, metric]
    assert one.count == len(points)
    assert one.mean == pytest.approx(sum(points) / len(points) / 100)
    assert (one.low, one.high) == pytest.approx((min(points) / 100, max(points) / 100))


def test_every_published_number_has_a_source() -> None:
    numbers = [one for claim in all_claims() for one in published(claim.name).values()]
    assert len(numbers) > 20
    for one in numbers:
        assert re.fullmatch(r"(Puigcerver|Videau) et al. 20\d\d, tables? \d( (to|and) \d)?", one.source)


def test_every_claim_names_its_source_and_a_sweep() -> None:
    sweeps = {file.stem for file in (conf_dir() / "sweep").glob("*.yaml")}
    for claim in all_claims():
        assert {claim.sweep, f"pocket_{claim.sweep}"} <= sweeps
        assert "20" in claim.source
