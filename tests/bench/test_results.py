import json
from pathlib import Path
from typing import Any

import pytest

from routerbench.bench.results import (
    Reference,
    Spread,
    flops_per_second,
    memory_ratio,
    read_references,
    read_results,
    seconds,
    time_ratio,
)


def test_dense_is_one_by_definition(results: dict[str, Any]) -> None:
    for case in results["cases"][:3]:
        assert time_ratio(case, "dense") == Spread(1.0, 1.0, 1.0)


def test_a_ratio_is_that_of_each_round(results: dict[str, Any]) -> None:
    # 0.11 / 0.1, 0.24 / 0.2, 0.6 / 0.4: medians alone would give 0.24 / 0.2 by chance, means 1.36.
    ratio = time_ratio(results["cases"][0], "bmm")
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((1.15, 1.2, 1.35))


def test_who_left_early_is_compared_with_the_rounds_it_was_in(results: dict[str, Any]) -> None:
    case = results["cases"][0]
    case["contestants"][1]["seconds"] = [0.2, 0.6]  # dense: 0.1, 0.2 and then 0.4
    ratio = time_ratio(case, "bmm")
    assert ratio is not None
    assert ratio.median == pytest.approx(2.5)


def test_memory_is_over_that_of_dense_and_the_experts_gradients(results: dict[str, Any]) -> None:
    layer, router, _, memory = results["cases"]
    assert memory_ratio(layer, "bmm") == 5 / (3 + 1)
    assert memory_ratio(memory, "bmm") == 10 / (7 + 1)
    assert memory_ratio(router, "soft") is None


def test_speed_is_operations_over_the_median(results: dict[str, Any]) -> None:
    assert flops_per_second(results["cases"][0], "bmm") == 12e9 / 0.24


@pytest.mark.parametrize("name", ["loop", "mine:layer", "unknown"])
def test_who_did_not_run_has_no_numbers(name: str, results: dict[str, Any]) -> None:
    case = results["cases"][0]
    assert [f(case, name) for f in (seconds, time_ratio, memory_ratio, flops_per_second)] == [None] * 4


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "cases": []}', '{"schema": 1, "cases": 0}'])
def test_another_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no measurement of this program") as error:
        read_results(path)
    assert str(error.value) == (
        f"from={str(path)!r} is no measurement of this program: give what --json has written"
    )


def test_results_are_read(results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(results))
    assert read_results(path) == results


HEADER = "label,measured_on,case,contestant,ratio\n"


def test_references_are_read(tmp_path: Path) -> None:
    path = tmp_path / "references.csv"
    path.write_text(f"{HEADER}to reach,,router x,soft,1.50\n")
    assert read_references(path) == [Reference("to reach", "", "router x", "soft", 1.5)]


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", f"{HEADER}x,,case,,\n", f"{HEADER}x,,case,,high\n", f"{HEADER}x,,case,,1,2\n"]
)
def test_another_table_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "references.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no CSV") as error:
        read_references(path)
    assert str(error.value) == (
        f"references={str(path)!r} is no CSV with the columns label, measured_on, case, contestant, ratio, "
        "ratio a number"
    )
