import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context

from routerbench.figures.picture import Picture
from routerbench.report import Board
from routerbench.report.figures.cost import cost_pictures
from routerbench.report.figures.critical_difference import critical_difference_pictures
from routerbench.report.figures.marks import marks_of

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]
Costing = Callable[..., None]


@pytest.fixture
def costing(write_run: WriteRun) -> Costing:
    """A function that writes a run for each score, of a model that costs so many MFLOPs."""

    def write(router: str, mega: float, *scores: float, scale: str = "small", device: str = "cpu") -> None:
        for seed, top1 in enumerate(scores):
            model, place = {"name": f"vit_{scale}"}, {"device": device}
            path = write_run(router, seed, top1, model=model, provenance=place)
            record = json.loads(path.read_text())
            record["cost"] |= {
                "flops_per_image": mega * 1e6,
                "params_total": mega,
                "images_per_second": 1 / mega,
            }
            path.write_text(json.dumps(record))

    return write


def svg(picture: Picture) -> str:
    buffer = BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "routerbench"}):
        picture.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().decode()


def test_a_picture_for_each_measure_and_device(costing: Costing, results: Path, boards_of: Boards) -> None:
    costing("dense", 10, 0.5, 0.6)
    costing("soft", 20, 0.7, 0.8)
    costing("hash", 30, 0.1, 0.1, device="other")
    pictures = cost_pictures(boards_of(results))
    cell = (
        "landcover32 · vit_small · placement last_2 · 8 experts · capacity factor 1 · group image · 8 epochs"
    )
    assert [picture.title for picture in pictures] == [
        f"Accuracy against active FLOPs · {cell}",
        # The other device ran one configuration alone: nothing to compare, so no picture.
        f"Accuracy against time on cpu · {cell}",
        f"Accuracy against parameters · {cell}",
    ]
    assert "On it: dense (100 %), soft (100 %)." in pictures[0].description
    assert pictures[0].description.endswith("in 5 % of the draws or more: none.")


def test_what_is_drawn_is_what_the_records_say(costing: Costing, results: Path, boards_of: Boards) -> None:
    costing("soft", 40, 0.8, scale="large")
    costing("soft", 10, 0.6)
    costing("dense", 5, 0.7)
    picture = cost_pictures(boards_of(results))[0]
    (axes,) = picture.figure.axes
    by_label = {container.get_label(): container[0].get_xydata() for container in axes.containers}
    assert {label: points.tolist() for label, points in by_label.items()} == {
        "dense": [[5.0, pytest.approx(70)]],
        "soft": [[10.0, pytest.approx(60)], [40.0, pytest.approx(80)]],
    }
    # One seed has no shares: the points of the frontier are named without.
    assert "On it: dense vit_small, soft vit_large." in picture.description


def test_nothing_to_compare_is_no_picture(costing: Costing, results: Path, boards_of: Boards) -> None:
    assert cost_pictures([]) == []
    costing("soft", 10, 0.6)
    assert cost_pictures(boards_of(results)) == []


def test_points_of_one_cost_and_one_score_are_drawn(
    costing: Costing, results: Path, boards_of: Boards
) -> None:
    for router in ("dense", "soft", "hash"):
        costing(router, 10, 0.6, 0.6)
    picture = cost_pictures(boards_of(results))[0]
    assert "On it: dense (100 %), hash (100 %), soft (100 %)." in picture.description
    assert "soft" in svg(picture)


def test_names_are_drawn_as_they_are(write_run: WriteRun, results: Path, boards_of: Boards) -> None:
    write_run("dense", 0, 0.5)
    write_run("a $x^2$ & <b>", 0, 0.6)
    text = svg(cost_pictures(boards_of(results))[0])
    assert "a $x^2$ &amp; &lt;b&gt;" in text


def test_marks_differ_without_colour() -> None:
    routers = [f"r{number}" for number in range(30)]
    marks = marks_of({name: name for name in ["hash", *routers, "dense"]})
    assert list(marks)[:2] == ["dense", "hash"]
    assert (marks["dense"].fill, marks["r0"].fill) == ("none", marks["r0"].colour)
    looks = {(mark.fill == "none", mark.shape, mark.line) for mark in marks.values()}
    assert len(looks) == len(marks)


def test_same_records_same_bytes_and_not_too_many(costing: Costing, results: Path, boards_of: Boards) -> None:
    names = [
        "dense",
        "hash",
        "random",
        "soft",
        "token_choice",
        *(f"router_of_a_long_name_{n}" for n in range(5)),
    ]
    for scale, factor in (("tiny", 1), ("small", 4), ("base", 16)):
        for number, name in enumerate(names):
            costing(name, factor * (1 + number / 10), 0.5 + number / 100, 0.51, scale=scale)
    first, again = ([svg(one) for one in cost_pictures(boards_of(results))] for _ in range(2))
    assert first == again
    assert max(map(len, first)) < 60_000  # before the page drops what repeats, half of it


def test_critical_difference_diagram(write_run: WriteRun, results: Path, boards_of: Boards) -> None:
    for number in range(8):
        assert critical_difference_pictures(boards_of(results) if number else []) == []
        for router, top1 in (("dense", 0.5), ("soft", 0.7), ("hash", 0.4)):
            write_run(router, 0, top1, data={"name": f"data{number}"})
    (picture,) = critical_difference_pictures(boards_of(results))
    assert picture.description.startswith(
        "Average ranks over 8 cells, 1 the best: soft 1.00, dense 2.00, hash 3.00. Friedman's test"
    )
    (axes,) = picture.figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["1", "2", "3", "critical difference 1.17", "soft  1.00", "dense  2.00", "hash  3.00"]
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 4]
    # Ranks 1 to 3 stand from 0.33 to 0.67: soft with dense and dense with hash are not told apart.
    assert [np.asarray(bar).tolist() for bar in bars] == [
        pytest.approx([0.325, 0.505]),
        pytest.approx([0.495, 0.675]),
    ]


def test_the_share_of_the_leftmost_point_does_not_cross_the_axis(
    costing: Costing, results: Path, boards_of: Boards
) -> None:
    costing("dense", 10, 0.5, 0.6)
    costing("soft", 20, 0.7, 0.8)
    figure = cost_pictures(boards_of(results))[0].figure
    (axes,) = figure.axes
    figure.draw_without_rendering()
    left = axes.get_window_extent().x0
    assert [text.get_text() for text in axes.texts] == ["100 %", "100 %"]
    assert all(text.get_window_extent().x0 > left for text in axes.texts)
