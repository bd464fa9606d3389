"""The pictures of a board, from records and files written by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from routerbench.figures.order import in_natural_order
from routerbench.figures.svg import svg
from routerbench.figures.tint import tinted
from routerbench.report import Board
from routerbench.report.boards.pairs import Pair
from routerbench.report.figures import forest as forest_module
from routerbench.report.figures.forest import forest
from routerbench.report.figures.learning import learning_curves
from routerbench.report.figures.maps import expert_maps
from routerbench.report.figures.of_board import pictures_of
from routerbench.report.figures.routing import routing_by_layer
from routerbench.stats import Estimate

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
Boards = Callable[..., list[Board]]


def write_all(write_run: WriteRun) -> dict[str, Path]:
    """Two seeds of dense and soft; the folders of the runs by name."""
    scores = {"dense": (0.70, 0.72), "soft": (0.75, 0.75)}
    return {
        f"{router}-{seed}": write_run(router, seed, top1).parent
        for router, both in scores.items()
        for seed, top1 in enumerate(both)
    }


def write_curve(folder: Path, *top1: float, extra: str = "") -> None:
    rows = [{"epoch": epoch, "test/top1": value} for epoch, value in enumerate(top1, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + extra)


def write_metrics(folder: Path, **metrics: float) -> None:
    record = json.loads((folder / "record.json").read_text())
    record["metrics"] |= {f"routing/{name.replace('__', '/')}": value for name, value in metrics.items()}
    (folder / "record.json").write_text(json.dumps(record))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]


def drawn(figure: Figure, panel: int) -> list[tuple[list[float], list[float]]]:
    """The points of every line of a panel."""
    lines = figure.axes[panel].lines
    return [
        (np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist())
        for line in lines
    ]


def test_a_difference_is_drawn_with_its_interval_and_its_seeds(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_all(write_run)
    (board,) = boards_of(results)
    picture = forest(board)
    assert picture is not None
    assert titles(picture.figure) == ["minus dense"]
    zero, interval, seeds, mean = (line[0] for line in drawn(picture.figure, 0))
    assert zero == [0, 0]
    # soft - dense: +5 and +3 points; mean 4, half-width 12.706 * 1.414 / sqrt(2) = 12.706.
    assert interval == pytest.approx([4 - 12.706, 4 + 12.706], abs=1e-3)
    assert seeds == pytest.approx([5, 3])
    assert mean == pytest.approx([4])


def test_verdicts_differ_in_shape_and_references_in_panels(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    for router in ("dense", "soft", "a", "b"):
        write_run(router, 0, 0.7)
    (board,) = boards_of(results)
    one = Estimate(0.01, 0.005, 0.015, 3)
    pairs = [
        Pair(1, 0, one, 0.01, "better", None),
        Pair(2, 0, one, 0.01, "worse", None),
        Pair(3, 0, one, 0.01, "equivalent", None),
        Pair(2, 1, one, 0.01, "undecided", None),
        Pair(3, 1, one, float("nan"), "undecided", None),
        Pair(3, 1, replace(one, mean=float("nan")), 0.01, "undecided", None),
    ]
    picture = forest(replace(board, pairs=replace(board.pairs, pairs=pairs)))
    assert picture is not None
    assert len(picture.figure.axes) == 2
    markers = {str(line.get_marker()) for axes in picture.figure.axes for line in axes.lines}
    assert {"^", "v", "s", "o", "x"} <= markers
    assert "▲ better: 1, ▼ worse: 1, ■ equivalent: 1, ○ undecided: 1, ✕ not tested: 1." in picture.description


def test_too_many_pairs_are_cut_and_it_says_so(
    results: Path, write_run: WriteRun, boards_of: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    for router in ("dense", "soft", "a", "b"):
        write_run(router, 0, 0.7)
    monkeypatch.setattr(forest_module, "MAX_PAIRS", 1)
    picture = forest(boards_of(results)[0])
    assert picture is not None
    assert len(picture.figure.axes[0].get_yticks()) == 1
    assert picture.description.endswith("The last 2 pairs are not drawn.")


def test_learning_curves_are_means_over_the_seeds_that_finished(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    folders = write_all(write_run)
    write_curve(folders["dense-0"], 0.2, 0.4)
    write_curve(folders["soft-0"], 0.3, 0.5)
    write_curve(folders["soft-1"], 0.5, 0.6)
    failed = write_run("soft", 2, None, "diverged").parent
    write_curve(failed, 0.1)
    (picture,) = learning_curves(boards_of(results)[0])
    assert titles(picture.figure) == ["dense", "soft"]
    dense, unfinished, mean = drawn(picture.figure, 1)
    assert dense == ([1, 2], pytest.approx([20, 40]))
    assert unfinished == ([1], pytest.approx([10]))
    # (0.3 + 0.5) / 2 and (0.5 + 0.6) / 2
    assert mean == ([1, 2], pytest.approx([40, 55]))
    assert "Dotted: runs that did not finish." in picture.description


def test_damaged_lines_of_curves_are_said(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    folders = write_all(write_run)
    write_curve(folders["soft-0"], 0.3, 0.5, extra='{"epoch": 3, "te')
    (picture,) = learning_curves(boards_of(results)[0])
    assert picture.description.endswith("Lines of metrics.jsonl that could not be read: 1.")


def test_routing_by_layer_is_a_mean_over_seeds(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    folders = write_all(write_run)
    for seed, load in ((0, 1.5), (1, 2.5)):
        metrics = {"blocks.10__load_max_over_mean": load, "blocks.2__load_max_over_mean": 1.0}
        write_metrics(folders[f"soft-{seed}"], **metrics, **{"blocks.2__dropped_fraction": 0.125})
    picture = routing_by_layer(boards_of(results)[0])
    assert picture is not None
    left, right = ([text.get_text() for text in axes.texts] for axes in picture.figure.axes)
    assert left == ["1.00", "2.00"]  # blocks.2 before blocks.10; (1.5 + 2.5) / 2
    assert right == ["12.5", "-"]
    ticks = picture.figure.axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["block 2", "block 10"]
    assert [tick.get_text() for tick in picture.figure.axes[0].get_yticklabels()] == ["soft"]


def test_maps_are_of_the_last_layer_of_the_first_seed(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    folders = write_all(write_run)
    first, last = np.full((3, 2), 9.0, np.float32), np.array([[1, 3], [2, 2], [np.nan, 2]], np.float32)
    maps = {"blocks.9/share_by_class": first, "blocks.10/share_by_class": last}
    np.savez(folders["soft-1"] / "routing.npz", allow_pickle=False, **maps)
    picture = expert_maps(boards_of(results)[0])
    assert picture is not None
    assert titles(picture.figure) == ["soft blocks.10"]
    # The even share is the mean of 1 3 2 2 0 2, 5/3: half opaque.
    opacity = np.asarray(picture.figure.axes[0].images[0].get_array())[..., 3]
    assert opacity == pytest.approx(np.array([[0.3, 0.9], [0.6, 0.6], [0, 0.6]]))


def test_maps_tell_the_mutual_information_of_their_layer_and_seed(
    results: Path, write_run: WriteRun, evaluate: Evaluate, boards_of: Boards
) -> None:
    folders = write_all(write_run)
    maps = {"blocks.10/share_by_class": np.ones((2, 2))}
    np.savez(folders["soft-0"] / "routing.npz", allow_pickle=False, **maps)
    for seed, share in ((0, 0.25), (1, 0.75)):
        numbers = {"class": 0.5, "blocks.10/class": share}
        evaluate(folders[f"soft-{seed}"] / "record.json", {"inspect": {"trained": numbers}})
    picture = expert_maps(boards_of(results)[0])
    assert picture is not None
    assert titles(picture.figure) == ["soft blocks.10\nNMI 0.250"]
    assert "NMI: normalised mutual information" in picture.description


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nothing", b"\x93NUMPY"])
def test_damaged_maps_are_none(results: Path, write_run: WriteRun, boards_of: Boards, damage: bytes) -> None:
    folders = write_all(write_run)
    (folders["soft-0"] / "routing.npz").write_bytes(damage)
    assert expert_maps(boards_of(results)[0]) is None


def test_maps_whose_bytes_were_changed_are_none(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    path = write_all(write_run)["soft-0"] / "routing.npz"
    maps = {"blocks.1/share_by_class": np.arange(10_000.0).reshape(100, 100)}
    np.savez_compressed(path, allow_pickle=False, **maps)
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    assert expert_maps(boards_of(results)[0]) is None


def test_maps_that_are_no_maps_are_none(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    folders = write_all(write_run)
    maps = {"a/share_by_class": np.zeros(3), "b/share_by_class": np.array([["x"]])}
    np.savez(folders["soft-0"] / "routing.npz", allow_pickle=False, **maps)
    np.save(folders["soft-1"] / "other.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folders["dense-0"] / "other.npy", np.zeros((2, 2)))
    (folders["dense-0"] / "other.npy").rename(folders["dense-0"] / "routing.npz")
    (folders["soft-1"] / "other.npy").rename(folders["soft-1"] / "routing.npz")  # what would run code
    assert expert_maps(boards_of(results)[0]) is None


def test_a_board_without_any_of_it_has_no_pictures(
    results: Path, write_run: WriteRun, boards_of: Boards
) -> None:
    write_run("soft", 0, 0.7)
    assert pictures_of(boards_of(results)[0]) == []


def test_all_pictures_can_be_drawn(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    folders = write_all(write_run)
    write_curve(folders["soft-0"], 0.5)
    write_metrics(folders["soft-0"], **{"blocks.1__load_max_over_mean": 1.0})
    maps = {"blocks.1/share_by_class": np.zeros((2, 2))}
    np.savez(folders["soft-0"] / "routing.npz", allow_pickle=False, **maps)
    pictures = pictures_of(boards_of(results)[0])
    assert len(pictures) == 4
    assert all(svg(picture, "p").startswith("<svg ") for picture in pictures)


def test_layers_are_in_the_order_of_the_model() -> None:
    names = ["stages.3.blocks.0", "blocks.10", "stages.2.blocks.11", "blocks.2", "stages.2.blocks.2"]
    assert sorted(names, key=in_natural_order) == [
        "blocks.2",
        "blocks.10",
        "stages.2.blocks.2",
        "stages.2.blocks.11",
        "stages.3.blocks.0",
    ]


def test_a_tint_is_one_colour_of_that_opacity() -> None:
    colours = tinted(np.array([[0.0, 0.25], [1.0, np.nan]]))
    assert colours[..., 3].tolist() == [[0, 0.25], [1, 0]]
    assert len({tuple(colour) for colour in colours[..., :3].reshape(-1, 3)}) == 1
