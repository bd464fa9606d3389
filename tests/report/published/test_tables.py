"""Numbers typed from the papers' tables, and how many rows each has."""

from pathlib import Path

import pytest

import routerbench.report.published
from routerbench.report.published import tables


def test_soft_moe_table_9() -> None:
    rows = tables.soft_moe_runs()
    assert [row.row for row in rows] == list(range(1, 108))
    dense, fifth, tenth = rows[0], rows[4], rows[9]
    assert (dense.backbone, dense.router, dense.num_experts, dense.k) == ("S/32", "dense", None, None)
    assert (dense.jft_precision_at_1, dense.imagenet_10shot) == pytest.approx((0.428, 0.510))
    assert (fifth.router, fifth.group_size_tokens, fifth.capacity_factor) == ("expert_choice", 392, 1.0)
    assert (tenth.router, tenth.k, tenth.train_exaflop, tenth.tpuv3_days) == ("token_choice", 1, 4.4, 8.0)
    assert (rows[100].backbone, rows[100].num_experts, rows[100].train_exaflop) == ("H/14", 128, 599.2)
    assert rows[106].imagenet_10shot == pytest.approx(0.748)


def test_soft_moe_tables_4_to_7() -> None:
    priority, placed = tables.priority_runs(), tables.placed_runs()
    assert (len(priority), len(placed)) == (8, 24)
    assert [row.batch_priority for row in priority[:2]] == [False, True]
    assert [row.imagenet_10shot for row in priority[:2]] == pytest.approx([0.645, 0.689])
    assert placed[12].blocks == [8, 9, 10, 11]
    assert (placed[12].router, placed[12].imagenet_10shot) == ("soft", pytest.approx(0.728))
    assert placed[12].jft_precision_at_1 == pytest.approx(0.532)


def test_sweet_spot_tables() -> None:
    first, second = tables.imagenet_models(), tables.pretrained_models()
    assert (len(first), len(second)) == (15, 10)
    assert (first[0].k, first[-1].k, first[-1].gflops) == (None, 2, 26.3)
    assert (first[-1].num_experts, first[-1].imagenet1k_top1) == (8, pytest.approx(0.825))
    assert (second[1].finetune_top1, second[1].zero_shot_top1) == pytest.approx((0.835, 0.446))
    third, counts, gates = tables.placed_models(), tables.counted_models(), tables.gated_models()
    assert (len(third), len(counts), len(gates)) == (11, 14, 12)
    assert (third[4].placement, third[4].imagenet1k_top1) == ("last_2", pytest.approx(0.821))
    assert (counts[8].backbone, counts[8].k, counts[8].imagenet1k_top1) == ("ViT-S", 2, pytest.approx(0.805))
    assert (gates[6].gate, gates[6].imagenet1k, gates[6].imagenet_a) == ("cosine", 0.797, 0.122)


def test_every_accuracy_is_a_fraction() -> None:
    for row in [*tables.soft_moe_runs(), *tables.placed_runs()]:
        assert 0.4 < row.jft_precision_at_1 < row.imagenet_10shot < 0.9
    for row in tables.gated_models():
        assert 0.1 < row.imagenet_a < row.imagenet1k < 0.9


def test_the_readme_names_every_file() -> None:
    folder = Path(routerbench.report.published.__file__).parent
    text = (folder / "README.md").read_text()
    names = sorted(path.name for path in folder.glob("*.csv"))
    assert len(names) == 8
    assert all(f"`{name}`" in text for name in names)
