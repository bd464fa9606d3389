"""The tables of the claims, as text."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from routerbench.report.claims import claims_section
from routerbench.report.runs.metric import Metric
from routerbench.report.tables.table import Table

TOP1 = Metric("test/top1", "top-1 %")
Run = dict[str, Any]


class Scene(NamedTuple):
    claim: str
    runs: Callable[[float], list[Run]]


def tables(runs: list[Run]) -> tuple[Table, Table, Table]:
    verdicts, comparisons, published = claims_section(runs, TOP1, 0.003).tables
    return verdicts, comparisons, published


def line(table: Table, number: int) -> list[str]:
    (found,) = (line for line in table.lines if line.cells[0].text.startswith(f"{number} "))
    return [cell.text for cell in found.cells]


def test_a_claim_with_its_verdict_and_numbers(scenes: list[Scene]) -> None:
    verdicts, comparisons, published = tables(dict(scenes)["batch priority at k = 1"](0.05))
    name, verdict, effect, _, cells, n, printed, sweep = line(verdicts, 5)
    assert (name, verdict) == ("5 batch priority at k = 1", "supported")
    # Of the jitter 0.2, -0.2, 0, 0.1, -0.1 the variance is 0.1 / 4 points squared: 2.776 x 0.158 / root 5.
    assert (effect, cells, n, printed, sweep) == ("+5.00 ± 0.20", "1", "5", "+4.55", "capacity")
    assert line(comparisons, 5) == ["5 on - off at k = 1", "+5.00 ± 0.20", "1", "5"]
    shots = next(line for line in published.lines if line.cells[0].text.startswith("5 "))
    assert [cell.text for cell in shots.cells][1:-1] == ["+4.55", "+4.40", "+4.70", "2", "ImageNet 10-shot"]
    assert shots.cells[-1].text == "Puigcerver et al. 2024, table 7"


def test_without_runs_every_claim_is_there_and_not_tested() -> None:
    verdicts, comparisons, _ = tables([])
    assert [row.cells[1].text for row in verdicts.lines] == ["not tested"] * len(verdicts.lines)
    assert line(verdicts, 1)[2:] == ["-", "-", "-", "-", "+0.00", "routers"]
    assert {tuple(cell.text for cell in row.cells[1:]) for row in comparisons.lines} == {("-", "0", "0")}


def test_every_line_has_a_cell_for_every_column(scenes: list[Scene]) -> None:
    for table in tables([run for scene in scenes for run in scene.runs(0.01)]):
        assert table.lines
        assert {len(row.cells) for row in table.lines} == {len(table.columns)}


def test_every_claim_is_spelt_out_with_its_source() -> None:
    verdicts, _, _ = tables([])
    assert len(verdicts.lines) == 16
    for number in range(1, 17):
        (note,) = (note for note in verdicts.notes if note.startswith(f"{number} "))
        assert note.endswith(")")
        assert " et al. 20" in note


def test_delta_is_told_in_points() -> None:
    assert any("above -0.30 points" in note for note in tables([])[0].notes)


def test_claims_on_runs_of_two_commits_are_marked(scenes: list[Scene]) -> None:
    runs = [run | {"provenance.commit": str(run["jitter"])} for run in dict(scenes)["linear gate"](0.05)]
    verdicts, _, _ = tables(runs)
    assert line(verdicts, 11)[0] == "11 linear gate ‡"
    assert [row.marked for row in verdicts.lines].count(True) == 1
    assert any(note.startswith("‡") for note in verdicts.notes)
    assert not any(note.startswith("‡") for note in tables([])[0].notes)


def test_commits_that_differ_from_cell_to_cell_are_not_marked(scenes: list[Scene]) -> None:
    gates = dict(scenes)["linear gate"](0.05)
    other = [run | {"config.data.name": "other", "provenance.commit": "b"} for run in gates]
    verdicts, _, _ = tables([*gates, *other])
    assert line(verdicts, 11)[0] == "11 linear gate"
    assert line(verdicts, 11)[4] == "2"


@pytest.mark.parametrize("status", ["failed", "diverged", "oom"])
def test_claims_on_runs_that_did_not_all_finish_are_marked(scenes: list[Scene], status: str) -> None:
    runs = [
        run | {"status": status} if run["jitter"] and run["config.seed"] == 4 else run
        for run in dict(scenes)["batch priority at k = 1"](0.05)
    ]
    verdicts, _, _ = tables(runs)
    assert line(verdicts, 5)[0] == "5 batch priority at k = 1 †"
    assert [row.marked for row in verdicts.lines].count(True) == 1
    assert any(note.startswith("†") for note in verdicts.notes)
    assert not any(note.startswith("†") for note in tables([])[0].notes)


def test_an_arm_that_its_cell_left_out_for_want_of_seeds_is_told(scenes: list[Scene]) -> None:
    gates = dict(scenes)["batch priority at k = 1"](0.05)
    other = [run | {"config.data.name": "other"} for run in gates]
    failed = [
        run | {"status": "done" if run["config.seed"] == 4 * run["jitter"] else "failed"} for run in other
    ]
    assert line(tables([*gates, *failed])[0], 5)[0] == "5 batch priority at k = 1 †"
