"""Setups and their contrasts, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from routerbench.report.claims.contrasts import cells_of, minus
from routerbench.report.claims.data_experts import slope_weights
from routerbench.report.claims.setups import Setup, setups_of
from routerbench.report.runs.metric import Metric

RunsOf = Callable[..., list[dict[str, Any]]]
TOP1 = Metric("test/top1", "top-1 %")


def setup(runs: list[dict[str, Any]]) -> Setup:
    (one,) = setups_of(runs, TOP1)
    return one


def test_contrasts_that_share_a_setup_are_one_cell(runs_of: RunsOf) -> None:
    dense = setup(runs_of("dense", 0))
    soft, hash_, other = (setup(runs_of(*arm)) for arm in (("soft", 0.02), ("hash", 0.04), ("random", 0.1)))
    cells = cells_of([minus(soft, dense), minus(other, setup(runs_of("uniform", 0))), minus(hash_, dense)])
    # Soft and hash over the same dense runs: 2 and 4 points, one cell of 3.
    assert [cell.differences() for cell in cells] == [pytest.approx([0.03] * 5), pytest.approx([0.1] * 5)]


def test_a_chain_of_shared_setups_is_one_cell(runs_of: RunsOf) -> None:
    a, b, c, d = (
        setup(runs_of(name, gain)) for name, gain in zip("abcd", (0, 0.01, 0.02, 0.06), strict=True)
    )
    # b - a and d - c have none in common until c - b joins them: 1, 4 and 1 points.
    (cell,) = cells_of([minus(b, a), minus(d, c), minus(c, b)])
    assert cell.differences() == pytest.approx([0.02] * 5)


def test_a_cell_keeps_the_seeds_by_which_most_differences_stay(runs_of: RunsOf) -> None:
    dense, soft, hash_ = runs_of("dense", 0), runs_of("soft", 0.02), runs_of("hash", 0.04)
    # Hash finished one seed: with it 1 seed of both, without it 5 of soft.
    pairs = [minus(setup(runs), setup(dense)) for runs in (soft, hash_[:1])]
    assert [cell.differences() for cell in cells_of(pairs)] == [pytest.approx([0.02] * 5)]
    # Four seeds of both are 2 x 3 differences beyond the first, five seeds of soft alone 4.
    pairs = [minus(setup(runs), setup(dense)) for runs in (soft, hash_[:4])]
    assert [cell.differences() for cell in cells_of(pairs)] == [pytest.approx([0.03] * 4)]


def test_setups_without_a_common_seed_make_no_cell(runs_of: RunsOf) -> None:
    soft, dense = setup(runs_of("soft", 0)[:2]), setup(runs_of("dense", 0)[2:])
    assert cells_of([minus(soft, dense)]) == []


def test_the_same_run_twice_counts_once(runs_of: RunsOf) -> None:
    first, again = runs_of("soft", 0)[:1], runs_of("soft", 0.1)[:1]
    assert setup([*first, *again]).score(0) == pytest.approx(0.6)


def test_slopes_by_hand() -> None:
    # Over log2 of 4, 8, 16 the slope is half of what the last is above the first.
    assert slope_weights([4, 8, 16]) == pytest.approx([-0.5, 0, 0.5])
    # 1, 2, 4: centred at 7/3, squares 16/9 + 1/9 + 25/9 = 14/3.
    assert slope_weights([2, 4, 16]) == pytest.approx([-4 / 14, -1 / 14, 5 / 14])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pocket_vit", "ViT"),
        ("vit_s32", "ViT"),
        ("vit_small_patch16_224", "ViT"),
        ("deit3_base_patch16_224.fb_in1k", "ViT"),
        ("flexivit_small", "ViT"),
        ("pocket_convnext", "ConvNeXt"),
        ("convnext_tiny", "ConvNeXt"),
        ("convnextv2_nano.fcmae", "ConvNeXt"),
        ("convnext_iso_small", "isotropic ConvNeXt"),
        ("pocket_convnext_iso", "isotropic ConvNeXt"),
        ("swin_tiny_patch4_window7_224", None),
        ("levit_128", None),
        ("convit_small", None),
        ("mobilevit_s", None),
    ],
)
def test_kinds_of_backbones(runs_of: RunsOf, name: str, kind: str | None) -> None:
    assert setup(runs_of("soft", 0, model__name=name)).kind == kind
