import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerbench.report import Board
from routerbench.report.across.configurations import names_of, rows_by_configuration
from routerbench.report.across.equal_cost import equal_cost_sections
from routerbench.report.across.families import families_of, kind_of
from routerbench.report.tables.table import Section, Table

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]
Scaled = Callable[..., Path]

WIDTHS = {"small": 16, "middle": 32, "large": 64}


@pytest.fixture
def scaled(write_run: WriteRun) -> Scaled:
    """A function that writes a run of a scale with its FLOPs in millions, and costs that go with them."""

    def write(router: str, seed: int, scale: str, mega: float, top1: float | None, **more: Any) -> Path:
        costs = {
            "flops_per_image": mega * 1e6,
            "params_total": mega * 1e5,
            "images_per_second": 1e4 / mega,
            **more.pop("cost", {}),
        }
        model = {"name": "pocket_vit", "arguments": {"embed_dim": WIDTHS[scale]}}
        path = write_run(router, seed, top1, **{"model": model, **more})
        record = json.loads(path.read_text())
        record["cost"] |= costs if top1 is not None else {}
        path.write_text(json.dumps(record))
        return path

    return write


def flops(sections: list[Section]) -> Table:
    (section,) = sections
    return section.tables[0]


def texts(table: Table) -> dict[str, list[str]]:
    return {line.cells[0].text: [cell.text for cell in line.cells[1:]] for line in table.lines}


def test_between_two_scales_by_hand(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    # Soft costs 10 and 40, so dense's 20 lies half way in the logarithm: there seed 0 has
    # (0.6 + 0.8) / 2 = 0.70 and seed 1 (0.62 + 0.86) / 2 = 0.74. Dense at 20 has
    # 0.69 and 0.71: soft is 0.01 and 0.03 better.
    for seed, (small, large) in enumerate([(0.60, 0.80), (0.62, 0.86)]):
        scaled("soft", seed, "small", 10, small)
        scaled("soft", seed, "large", 40, large)
        scaled("dense", seed, "small", 5, 0.5 + seed / 10)
        scaled("dense", seed, "large", 20, 0.69 + seed / 50)
    table = flops(equal_cost_sections(boards_of(results)))
    assert table.name == "Equal active FLOPs"
    assert [column.header for column in table.columns] == [
        "router", "slots/token", "scales", "from MFLOPs", "to MFLOPs", "top-1 % at 20.0 MFLOPs",
        "minus dense at 20.0 MFLOPs, points",
    ]  # fmt: skip
    # t(0.975, 1 degree of freedom) = 12.706: half an interval is that times half the distance of the two.
    assert texts(table) == {
        "dense": ["0.00", "2", "5.00", "20.0", "70.00 ± 12.71", "-"],
        "soft": ["1.00", "2", "10.0", "40.0", "72.00 ± 25.41", "+2.00 ± 12.71"],
    }
    assert (table.num_references, table.notes) == (1, [])


def test_three_measures_and_each_device_alone(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    for device, speed in (("A", 1.0), ("B", 3.0)):
        for scale, mega in (("small", 10), ("middle", 20), ("large", 40)):
            for number, router in enumerate(("dense", "soft")):
                seed = 0 if device == "A" else 1
                cost = {"images_per_second": speed * 1e4 / mega}
                place = {"provenance": {"device": device}, "cost": cost}
                scaled(router, seed, scale, mega, 0.5 + mega / 100 + number / 10, **place)
    (section,) = equal_cost_sections(boards_of(results))
    names = ["active FLOPs", "time on A", "time on B", "parameters"]
    assert [table.name for table in section.tables] == [f"Equal {name}" for name in names]
    # Device A: seed 0 alone, so no interval; 10 MFLOPs take 1 ms there and 0.333 ms on B, where it is seed 1.
    assert texts(section.tables[1])["soft"][:5] == ["1.00", "3", "1.00", "4.00", "70.00"]
    assert texts(section.tables[2])["soft"][2:4] == ["0.333", "1.33"]
    assert "device alone: A." in section.tables[1].caption
    # Rows of two devices are marked where both count, not where one does.
    assert "soft ‡" in texts(section.tables[0])
    assert "soft" in texts(section.tables[1])


def test_nothing_is_extrapolated(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    for scale, dense, soft in (("small", 1, 10), ("middle", 20, 20), ("large", 50, 40)):
        scaled("dense", 0, scale, dense, 0.5)
        scaled("soft", 0, scale, soft, 0.6)
        scaled("hash", 0, scale, soft * 10, 0.3)
    table = flops(equal_cost_sections(boards_of(results)))
    assert [column.header for column in table.columns[5:]] == [
        "top-1 % at 20.0 MFLOPs",
        "minus dense at 20.0 MFLOPs, points",
    ]
    assert texts(table)["hash"][4:] == ["-", "-"]


def test_no_curve_reaches_the_reference(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    for scale, mega in (("small", 1), ("large", 2)):
        scaled("dense", 0, scale, mega, 0.5)
        scaled("soft", 0, scale, 10 * mega, 0.6)
    table = flops(equal_cost_sections(boards_of(results)))
    assert len(table.columns) == 5
    assert table.notes == ["No curve reaches a cost of dense: without extrapolation nothing can be compared"]


def test_a_dense_model_of_one_scale_is_reference_enough(
    scaled: Scaled, results: Path, boards_of: Boards
) -> None:
    scaled("dense", 0, "middle", 20, 0.5)  # a cell without routers, which joins them all the same
    scaled("soft", 0, "small", 10, 0.6)
    scaled("soft", 0, "large", 40, 0.8)
    table = flops(equal_cost_sections(boards_of(results)))
    assert texts(table)["soft"][4:] == ["70.00", "+20.00"]
    assert texts(table)["dense"][1] == "1"


def test_token_choice_is_the_reference_without_dense(
    scaled: Scaled, results: Path, boards_of: Boards
) -> None:
    for router, mega in (("token_choice", 10), ("soft", 20), ("soft", 5)):
        for scale, factor in (("small", 1), ("large", 4)):
            if router == "token_choice" or mega == 5:
                scaled(router, 0, scale, mega * factor, 0.5)
    table = flops(equal_cost_sections(boards_of(results)))
    assert table.columns[5].header == "top-1 % at 10.0 MFLOPs"
    assert table.columns[6].header == "minus token_choice at 10.0 MFLOPs, points"


def test_without_a_reference_it_says_so(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    scaled("soft", 0, "small", 10, 0.6)
    scaled("soft", 0, "large", 40, 0.8)
    table = flops(equal_cost_sections(boards_of(results)))
    assert table.notes == [
        "Neither dense nor token_choice is here, at whose costs the others would be compared"
    ]


def test_a_seed_counts_where_it_has_both_neighbours(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    # Seed 1 diverged at the large scale: it has no score between the two, and the curve is marked.
    scaled("soft", 0, "small", 10, 0.6)
    scaled("soft", 0, "large", 40, 0.8)
    scaled("soft", 1, "small", 10, 0.9)
    scaled("soft", 1, "large", 40, None, status="diverged")
    scaled("dense", 0, "middle", 20, 0.5)
    scaled("dense", 1, "middle", 20, 0.5)
    table = flops(equal_cost_sections(boards_of(results)))
    assert texts(table)["soft †"][4:] == ["70.00", "+20.00"]
    assert table.notes == ["† not every run of this curve finished: its numbers stand for those that did"]


def test_two_scales_at_one_cost_are_no_curve(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    for scale, mega in (("small", 10), ("middle", 10), ("large", 40)):
        scaled("soft", 0, scale, mega, 0.6)
        scaled("token_choice", 0, scale, WIDTHS[scale], 0.6)
    table = flops(equal_cost_sections(boards_of(results)))
    assert "No curve, as two scales have one cost: soft" in table.notes
    assert "soft" not in texts(table)


@pytest.mark.parametrize(
    "more", [{"epochs": 90}, {"num_experts": 16}, {"model": {"name": "pocket_convnext"}}]
)
def test_what_differs_in_more_than_scale_is_no_curve(
    more: dict[str, Any], scaled: Scaled, results: Path, boards_of: Boards
) -> None:
    scaled("soft", 0, "small", 10, 0.6)
    scaled("soft", 0, "large", 40, 0.8, **more)
    assert equal_cost_sections(boards_of(results)) == []


def test_scales_without_a_common_seed_are_no_curve(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    scaled("soft", 0, "small", 10, 0.6)
    scaled("soft", 1, "large", 40, 0.8)
    assert equal_cost_sections(boards_of(results)) == []


def test_one_scale_all_failed_or_no_boards(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    assert equal_cost_sections([]) == []
    scaled("soft", 0, "small", 10, None, status="failed")
    scaled("soft", 0, "large", 40, None, status="failed")
    assert equal_cost_sections(boards_of(results)) == []
    scaled("soft", 1, "small", 10, 0.5)
    assert equal_cost_sections(boards_of(results)) == []


def test_families_of_one_title_are_told_apart(scaled: Scaled, results: Path, boards_of: Boards) -> None:
    for rate in (0.1, 0.2):
        for scale in ("small", "large"):
            scaled("soft", 0, scale, WIDTHS[scale], 0.5, optim={"lr": rate})
    cell = "placement last_2 · 8 experts · capacity factor 1 · group image · 8 epochs"
    title = f"landcover32 · vit at 2 scales · {cell}"
    assert [family.title for family in families_of(boards_of(results))] == [
        f"{title} · optim.lr=0.1",
        f"{title} · optim.lr=0.2",
    ]
    (family, _) = families_of(boards_of(results))
    assert list(family.scales) == ["arguments.embed_dim=16", "arguments.embed_dim=64"]


def test_a_setting_that_the_router_passes_on_does_not_part_configurations(
    write_run: WriteRun, results: Path, boards_of: Boards
) -> None:
    for factor in (1.0, 2.0):
        write_run("soft", 0, 0.5, settings={"capacity_factor": factor}, capacity_factor=factor)
        write_run("soft", 0, 0.5, settings={"capacity_factor": 9.0}, capacity_factor=factor)
    boards = boards_of(results)
    names = names_of({key for board in boards for key in rows_by_configuration(board)}, ["router"])
    assert sorted(names.values()) == ["soft capacity_factor=9", "soft capacity_factor=null"]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("vit_small_patch16_224", "vit"),
        ("vit_so400m_patch14_siglip_224.webli", "vit_siglip"),
        ("pocket_vit", "vit"),
        ("vit_s32", "vit"),
        ("convnext_iso_base", "convnext_iso"),
        ("pocket_convnext", "convnext"),
        ("deit3_base_patch16_224", "deit3"),
        ("small", "small"),
    ],
)
def test_the_kind_of_a_model_is_its_name_without_sizes(model: str, kind: str) -> None:
    assert kind_of(model) == kind


def test_seconds_unknown_leave_the_table_of_time_out(
    scaled: Scaled, results: Path, boards_of: Boards
) -> None:
    for scale, mega in (("small", 10), ("large", 40)):
        scaled("soft", 0, scale, mega, 0.6, cost={"images_per_second": math.nan})
        scaled("dense", 0, scale, mega, 0.6, cost={"images_per_second": 0})
    (section,) = equal_cost_sections(boards_of(results))
    assert [table.name for table in section.tables] == ["Equal active FLOPs", "Equal parameters"]
