"""A report on records of any shape: tables, or one line that says why there are none."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from routerbench.figures.picture import Picture
from routerbench.report import Options, write_report

WriteRun = Callable[..., Path]
POCKET = Path(__file__).parents[2] / "results" / "pocket" / "runs"
EVALUATIONS = {
    "capacity": {
        name: {"top1": 0.5, "executed_flops_per_image": 1e7}
        for name in ("trained", "capacity_factor=0.5 batch_priority=true", "dropless=true")
    },
    "batches": {"group=image": {"sensitivity_points": 0.5}},
    "routers": {"random": {"top1_lost_points": 12.5}, "random blocks.5": {"top1_lost_points": 1.5}},
    "inspect": {"trained": {"class": 0.25, "position": 0.125, "blocks.5/class": 0.5}},
}
RECORDS = [json.loads(path.read_text()) for path in sorted(POCKET.glob("*-s[01]-*/record.json"))[:6]]

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.sampled_from([10**400, 10**20, 1.0, 0.5, float("nan"), float("inf"), -float("inf"), 1e300]),
    st.text(max_size=8),
    st.sampled_from(
        ["<b>", "dense", "soft", "a|b", "\x1b[31m", "\ud800", "0.5", "x" * 300, "${a}", "{{ x }}"]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=[pytest.param(False, id="laid out"), pytest.param(True, id="drawn", marks=pytest.mark.slow)],
)
def _pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pictures are made, and drawn in the slow tests alone, for that takes most of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.param:
            patch.setattr(Picture, "drawn", b'<svg viewBox="0 0 1 1"/>')
        yield


def report_on(contents: list[str | bytes]) -> str:
    """What a report on files with these contents says, or its one line where it refuses."""
    with TemporaryDirectory() as folder:
        results = Path(folder)
        for number, content in enumerate(contents):
            path = results / "runs" / f"{number:03d}" / "record.json"
            path.parent.mkdir(parents=True)
            path.write_bytes(
                content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            )
        console = Console(file=StringIO(), width=120)
        try:
            write_report(Options(results, results), console)
        except ValueError as error:
            refusal = str(error)
        else:
            assert isinstance(console.file, StringIO)
            return console.file.getvalue()
    assert "\n" not in refusal
    return refusal


def paths_in(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The places of a record, groups and what is in them."""
    inner = (
        [p for name, part in node.items() for p in paths_in(part, (*path, name))]
        if isinstance(node, dict)
        else []
    )
    return ([path] if path else []) + inner


PLACES = sorted({path for record in RECORDS for path in paths_in(record)})


def changed(record: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The record with another value at a place, if it has that place."""
    new = deepcopy(record)
    node = new
    for name in place[:-1]:
        node = node.get(name)
        if not isinstance(node, dict):
            return new
    node[place[-1]] = value
    return new


@settings(max_examples=25)
@given(
    changes=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(PLACES), VALUES), min_size=1, max_size=4)
)
def test_any_value_at_any_place(changes: list[tuple[int, tuple[str, ...], Any]]) -> None:
    records = list(RECORDS)
    for number, place, value in changes:
        records[number] = changed(records[number], place, value)
    assert report_on([json.dumps(record) for record in records])


@settings(max_examples=15)
@given(number=st.integers(0, 5), place=st.sampled_from(PLACES), value=VALUES)
def test_the_same_value_in_every_record(number: int, place: tuple[str, ...], value: Any) -> None:
    assert report_on([json.dumps(changed(record, place, value)) for record in RECORDS])


@settings(max_examples=15)
@given(places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=3))
def test_any_place_that_is_missing(places: list[tuple[str, ...]]) -> None:
    record = deepcopy(RECORDS[0])
    for place in places:
        node = record
        for name in place[:-1]:
            node = node.get(name, {})
        node.pop(place[-1], None)
    assert report_on([json.dumps(record), *map(json.dumps, RECORDS[1:])])


@settings(max_examples=10)
@given(cut=st.integers(0, 4000))
def test_a_record_that_is_half_written(cut: int) -> None:
    whole = json.dumps(RECORDS[0])
    said = report_on([whole[: min(cut, len(whole) - 1)], json.dumps(RECORDS[1])])
    assert "Left out, as it cannot be read: runs/000/record.json" in said


@settings(max_examples=10)
@given(content=st.binary(max_size=40))
def test_any_bytes(content: bytes) -> None:
    assert report_on([content, json.dumps(RECORDS[1])])


@settings(max_examples=20)
@given(place=st.sampled_from(paths_in(EVALUATIONS)), value=VALUES, mode=st.text(max_size=12))
def test_any_value_and_any_mode_in_evaluations(place: tuple[str, ...], value: Any, mode: str) -> None:
    evaluations = changed(EVALUATIONS, place, value)
    named = {study: {mode: {mode: value, "top1": 0.5}, "trained": {"top1": 0.5}} for study in EVALUATIONS}
    contents = [{**RECORDS[0], "evaluations": found} for found in (evaluations, named)]
    assert report_on([json.dumps(content) for content in contents])


@settings(max_examples=10)
@given(evaluations=VALUES)
def test_evaluations_of_any_form(evaluations: Any) -> None:
    assert report_on([json.dumps({**RECORDS[0], "evaluations": evaluations})])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "[" * 100_000,
        "9" * 5000,
        json.dumps({**RECORDS[0], "schema": 0}),
        json.dumps({**RECORDS[0], "config": {**RECORDS[0]["config"], "seed": "0"}}),
        json.dumps({**RECORDS[0], "config": {**RECORDS[0]["config"], "seed": True}}),
        json.dumps({**RECORDS[0], "config": {**RECORDS[0]["config"], "router": {"name": ["soft"]}}}),
        json.dumps({**RECORDS[0], "run_id": 7}),
        b"\xff\xfe{",
    ],
)
def test_what_is_no_record_is_left_out_and_said(content: str | bytes) -> None:
    said = report_on([content, json.dumps(RECORDS[1])])
    assert "Left out, as it cannot be read: runs/000/record.json" in said
    assert report_on([content]).endswith("cannot be read: runs/000/record.json")


def test_a_refusal_is_one_line_whatever_the_names() -> None:
    record = {**RECORDS[0], "metrics": {"a\nb\x1b": 0.5}}
    text = "--metric=test/top1 is no accuracy of these runs: they have a\\nb\\x1b"
    assert report_on([json.dumps(record)]) == text


def test_a_record_that_may_not_be_opened_is_left_out_and_said(results: Path, write_run: WriteRun) -> None:
    write_run("soft", 0, 0.5)
    (results / "runs" / "folder" / "record.json").mkdir(parents=True)
    console = Console(file=StringIO(), width=120)
    write_report(Options(results, results), console)
    assert isinstance(console.file, StringIO)
    assert "Left out, as it cannot be read: runs/folder/record.json" in console.file.getvalue()
