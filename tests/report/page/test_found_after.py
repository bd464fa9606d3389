"""What was found of a run after training, on its page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerbench.report.page import found_after
from routerbench.report.page.found_after import studies_of
from routerbench.report.page.parts import Study

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
PageOf = Callable[[Path], str]


def test_a_study_is_a_table_of_its_modes_with_intervals() -> None:
    found = {
        "capacity": {
            "trained": {"top1": 0.123456, "executed_flops_per_image": 12345678.0},
            "dropless=true": {"top1": 0.5, "lost": 1.0, "lost_low": -1.0, "lost_high": 3.0, "alone_low": 2.0},
        }
    }
    assert studies_of({"evaluations": found}) == [
        Study(
            "capacity",
            ["top1", "executed_flops_per_image", "lost", "alone_low"],
            [
                ("trained", ["0.1235", "12,345,678", "-", "-"]),
                ("dropless=true", ["0.5", "-", "1 (-1 to 3)", "2"]),
            ],
            "",
        )
    ]


def test_what_is_told_of_layers_has_a_line_for_each() -> None:
    found = {"inspect": {"trained": {"blocks.4/class": 0.25, "blocks.4/class_p": 0.5, "class": 0.125}}}
    (study,) = studies_of({"evaluations": found})
    assert study.columns == ["class", "class_p"]
    assert study.modes == [("trained", ["0.125", "-"]), ("trained blocks.4", ["0.25", "0.5"])]


def test_what_has_no_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_after, "MOST_MODES", 1)
    monkeypatch.setattr(found_after, "MOST_COLUMNS", 1)
    found = {"x" * 70: {"one": {"a": 1.0, "b": 2.0, "c": 3.0}, "two": {"a": 1.0}}}
    (study,) = studies_of({"evaluations": found})
    assert (study.name, study.columns, study.modes) == ("x" * 60 + "…", ["a"], [("one", ["1"])])
    assert study.left_out == "Left out: 1 modes and 2 numbers of each; the record has them."


def test_a_run_without_evaluations_has_none() -> None:
    assert studies_of({"run_id": "a"}) == []


def test_the_page_has_the_tables_and_names_the_pictures(
    results: Path, write_run: WriteRun, evaluate: Evaluate, page_of: PageOf
) -> None:
    path = write_run("soft", 0, 0.7, run_id="soft-0")
    assert "After training" not in page_of(results)
    evaluate(path, {"capacity": {"<b>": {"<i>": 0.5}}})
    (path.parent / "inspect").mkdir()
    (path.parent / "inspect" / "index.html").write_text("pictures")
    text = page_of(results)
    assert "<summary>After training: capacity</summary>" in text
    assert "&lt;b&gt;" in text
    assert "&lt;i&gt;" in text
    assert "<b>" not in text
    where = "in the results folder: runs/<wbr>soft-0/<wbr>inspect/<wbr>index.html"
    assert f"Pictures of its routing, {where}" in text
    assert str(results) not in text
