"""The claim on the number of experts and the amount of data."""

import math
import re
from collections.abc import Sequence

from routerbench.report.claims.claim import Claim, PublishedPart, part_of
from routerbench.report.claims.contrasts import Contrast, added
from routerbench.report.claims.setups import Setup, matched, of
from routerbench.report.published.differences import PublishedDifference, summary
from routerbench.report.published.tables import counted_models

SOURCE = (
    "Videau et al. 2025, Mixture of Experts in Image Classification: What's the Sweet Spot?, tables 4 and 6"
)
PART = "per doubling, more - less data"
SPLIT = re.compile(r"[^\[\]]+(?:\[(?:0%?)?:(?P<stop>\d+(?:\.\d+)?)(?P<percent>%)?\])?")
MORE = 2  # times the data, at least: what is held out does not make a smaller set
ABOUT = ("num_experts", "data.train_split", "data.source.train_split")


def claims() -> list[Claim]:
    """More data, more experts."""
    return [
        Claim(
            "more experts with more data",
            "A doubling of the number of experts gives more on at least twice the training data.",
            SOURCE,
            "experts",
            lambda setups: [part_of(PART, _experts_by_data(setups))],
            lambda: [PublishedPart(PART, _published())],
        )
    ]


def _experts_by_data(setups: Sequence[Setup]) -> list[Contrast]:
    """The slope over log2 of the number of experts, on the most data minus on the fewest of a cell."""
    sparse = of(setups, lambda setup: not setup.dense and _counted(setup) and _size(setup) is not None)
    found = [_slopes(group) for group in matched(sparse, ABOUT)]
    return [contrast for contrast in found if contrast is not None]


def _counted(setup: Setup) -> bool:
    number = setup.get("num_experts")
    return isinstance(number, int) and number > 0


def _slopes(group: Sequence[Setup]) -> Contrast | None:
    sizes: dict[tuple[str, float], dict[int, Setup]] = {}
    for setup in group:
        size = _size(setup)
        assert size is not None
        sizes.setdefault(size, {})[setup.get("num_experts")] = setup
    units = {unit for unit, _ in sizes if unit}
    if len(sizes) < 2 or len(units) > 1:  # a percentage is no more and no less than a number of images
        return None
    fewest, most = (choose(sizes, key=lambda size: size[1]) for choose in (min, max))
    whole = 100.0 if "%" in units else math.inf
    shared = sorted(sizes[fewest].keys() & sizes[most].keys())
    if len(shared) < 2 or min(most[1], whole) < MORE * fewest[1]:
        return None
    slopes = [
        Contrast(_slope_terms([sizes[size][number] for number in shared], shared)) for size in (most, fewest)
    ]
    return added([slopes[0], slopes[1].scaled(-1.0)])


def slope_weights(num_experts: Sequence[int]) -> list[float]:
    """Weights of the scores whose sum is their least-squares slope over log2 of the number of experts."""
    places = [math.log2(number) for number in num_experts]
    centred = [place - sum(places) / len(places) for place in places]
    return [place / sum(other**2 for other in centred) for place in centred]


def _slope_terms(setups: Sequence[Setup], num_experts: Sequence[int]) -> list[tuple[float, Setup]]:
    return list(zip(slope_weights(num_experts), setups, strict=True))


def _size(setup: Setup) -> tuple[str, float] | None:
    """How much of the training set is used: a unit and a number; None for a part that does not start it."""
    match = SPLIT.fullmatch(str(setup.get("data.train_split") or "train"))
    if match is None:
        return None
    if match["stop"] is None or (match["percent"] and float(match["stop"]) == 100):
        return "", math.inf
    return match["percent"] or "images", float(match["stop"])


def _published() -> list[PublishedDifference]:
    """ConvNeXt-T with k = 1, over the numbers of experts that both tables have (8 and 16)."""
    rows = [row for row in counted_models() if (row.backbone, row.k) == ("ConvNeXt-T", 1)]
    scores = {(row.pretraining, row.num_experts): row.imagenet1k_top1 for row in rows}
    shared = sorted(
        {n for data, n in scores if data == "imagenet1k"} & {n for data, n in scores if "21k" in data}
    )
    slopes = [
        sum(weight * scores[data, n] for weight, n in zip(slope_weights(shared), shared, strict=True))
        for data in ("imagenet21k", "imagenet1k")
    ]
    return summary("ImageNet-1k top-1", [slopes[0] - slopes[1]], "Videau et al. 2025, tables 4 and 6")
