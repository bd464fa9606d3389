"""What goes to W&B of rows and records, worked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from routerbench.tracking.content import bounded, digest_of, headlines, layer_table, rows_of, summary_of

LAYERS = {
    f"routing/{layer}/{metric}": value
    for layer, value in (("blocks.2", 1.0), ("blocks.5", 2.0), ("blocks.11", 3.0))
    for metric in ("load_cv", "margin")
}
RECORD: dict[str, Any] = {
    "run_id": "a",
    "status": "done",
    "metrics": {"test/top1": 0.5, "routing/load_cv": 2.0, **LAYERS},
    "cost": {"flops_per_image": 7, "peak_memory_gib": None},
    "config": {"seed": 0},
}


def test_of_the_layers_the_first_and_the_last_go_there_and_of_these_a_few_metrics() -> None:
    train = {f"train/{name}": value for name, value in LAYERS.items()}
    assert bounded({"step": 3, "train/loss": 1.5, "routing/margin": 0.5, **LAYERS, **train}) == {
        "step": 3,
        "train/loss": 1.5,
        "routing/margin": 0.5,
        "routing/first/load_cv": 1.0,
        "routing/last/load_cv": 3.0,
        "train/routing/first/load_cv": 1.0,
        "train/routing/last/load_cv": 3.0,
    }


def test_a_single_layer_is_the_first_and_the_last() -> None:
    assert bounded({"routing/stages.3.blocks.1/entropy": 0.25}) == {
        "routing/first/entropy": 0.25,
        "routing/last/entropy": 0.25,
    }


def test_a_deep_model_sends_no_more_names_than_one_with_two_layers() -> None:
    def row(num_layers: int) -> dict[str, Any]:
        names = ("load_cv", "demand_cv", "entropy", "margin", "dropped_fraction")
        return {f"routing/blocks.{layer}/{name}": 0.0 for layer in range(num_layers) for name in names}

    assert bounded(row(48)).keys() == bounded(row(2)).keys()
    assert len(bounded(row(48))) == 8


def test_the_summary_has_the_whole_record_but_for_its_settings() -> None:
    summary = summary_of(RECORD)
    assert json.loads(summary.pop("record")) == {
        "schema": 1,
        **{name: part for name, part in RECORD.items() if name != "config"},
    }
    assert summary == {
        "test/top1": 0.5,
        "routing/load_cv": 2.0,
        "routing/first/load_cv": 1.0,
        "routing/last/load_cv": 3.0,
        "cost/flops_per_image": 7,
        "cost/peak_memory_gib": None,
        "status": "done",
    }


EVALUATIONS: dict[str, Any] = {
    "capacity": {
        "trained": {"top1": 0.5, "ece": 0.03},
        "capacity_factor=0.5": {"top1": 0.4, "ece": 0.04},
        "dropless=true": {"top1": 0.52, "ece": 0.02},
    },
    "batches": {
        "group=image": {"sensitivity_points": 0.0},
        "group=8": {"sensitivity_points": 0.25, "changed_fraction": 0.125},
    },
    "routers": {"random": {"top1_lost_points": 12.5}, "random blocks.5": {"top1_lost_points": 3.0}},
    "compute": {"capacity_factor=0.5 batch_priority=true": {"slots_right_minus_wrong": 2.5}},
    "inspect": {"trained": {"class": 0.25, "position": 0.125, "blocks.5/class": 0.5}},
    "images": {"imagenet_v2": {"top1": 0.25}},
}


def test_the_summary_has_a_headline_of_each_study_and_all_of_it_in_the_record() -> None:
    record = {**RECORD, "config": {"seed": 0, "group": 8}, "evaluations": EVALUATIONS}
    summary = summary_of(record)
    assert {name: summary[name] for name in summary if name.startswith("eval/")} == {
        "eval/dropless_top1": 0.52,
        "eval/ece": 0.03,
        "eval/random_router_lost_points": 12.5,
        "eval/class_nmi": 0.25,
        "eval/position_nmi": 0.125,
        "eval/sensitivity_points": 0.25,
        "eval/changed_fraction": 0.125,
        "eval/slots_right_minus_wrong": 2.5,
    }
    assert json.loads(summary["record"])["evaluations"] == EVALUATIONS


def test_the_headlines_are_no_more_with_more_modes() -> None:
    many = {f"capacity_factor={number}": {"top1": 0.5} for number in range(100)}
    record = {**RECORD, "evaluations": {**EVALUATIONS, "capacity": {**EVALUATIONS["capacity"], **many}}}
    assert headlines(record).keys() == headlines({**RECORD, "evaluations": EVALUATIONS}).keys()


@pytest.mark.parametrize(
    "damaged", [None, 7, [], {"capacity": 1}, {"capacity": {"trained": {"ece": "high"}}}]
)
def test_evaluations_of_another_form_have_no_headline(damaged: Any) -> None:
    assert headlines({**RECORD, "evaluations": damaged}) == {}


def test_the_table_has_a_row_for_each_layer_in_the_order_of_the_model() -> None:
    assert layer_table(RECORD) == (
        ["layer", "load_cv", "margin"],
        [["blocks.2", 1.0, 1.0], ["blocks.5", 2.0, 2.0], ["blocks.11", 3.0, 3.0]],
    )
    assert layer_table({"metrics": {"test/top1": 1.0}}) == (["layer"], [])


def test_a_run_without_rows_has_none(tmp_path: Path) -> None:
    assert list(rows_of(tmp_path)) == []


def test_every_change_of_the_record_is_a_new_digest(tmp_path: Path) -> None:
    digests = set()
    for text in ("{}", "{} ", '{"a": 1}'):
        (tmp_path / "record.json").write_text(text)
        digests.add(digest_of(tmp_path))
    assert len(digests) == 3
