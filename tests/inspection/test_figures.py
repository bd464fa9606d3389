"""The pictures of what was seen, against numbers worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from routerbench.commands.inspect import FORMATS
from routerbench.figures.style import FAINT
from routerbench.figures.svg import svg
from routerbench.inspection.figures import (
    by_class,
    by_layer,
    by_position,
    images,
    looks,
    pairs,
    per_image,
    stability,
)
from routerbench.inspection.figures.looks import EXPERT_COLOURS, EXPERT_HATCHES, look_of
from routerbench.inspection.figures.said import beside, chance, interval, number
from routerbench.inspection.figures.shown import ShownImages, caption
from routerbench.inspection.figures.slots import Mixtures, dispatch_maps
from routerbench.inspection.figures.stability import over_checkpoints, over_seeds
from routerbench.inspection.figures.training import over_training

if TYPE_CHECKING:
    from routerbench.inspection.seeing.seen import LayerSeen, Seen

MakeLayer = Callable[..., "LayerSeen"]
MakeSeen = Callable[..., "Seen"]
# Two images of a class token and 2 x 2 patches; expert 2 has nothing, one patch is dropped.
EXPERT = [[0, 0, 0, 1, -1], [0, 1, 1, 1, 1]]
NUMBERS = {
    "blocks.1/class": 0.25,
    "blocks.1/class_low": 0.2,
    "blocks.1/class_high": 0.3,
    "blocks.1/class_null": 0.012,
    "blocks.1/class_p": 0.005,
    "blocks.1/position": 0.5,
}


def two_images() -> ShownImages:
    return ShownImages(np.array([0, 1]), np.random.default_rng(0).random((2, 4, 4, 3)))


def key(picture: Any) -> list[str]:
    return [text.get_text() for legend in picture.figure.legends for text in legend.get_texts()]


def texts(picture: Any) -> list[str]:
    return [text.get_text() for axes in picture.figure.axes for text in axes.texts]


def test_a_class_is_served_by_its_experts(make_layer: MakeLayer, make_seen: MakeSeen) -> None:
    layer = make_layer(EXPERT)
    drawn = by_class.class_maps(make_seen(layer, labels=[0, 1]), [layer], NUMBERS)
    # Of class 0 expert 0 has 3 of 4 served tokens, expert 1 has 1; an even share is a third.
    assert [row[3] for row in drawn.rows] == pytest.approx([9 / 4, 3 / 4, 0, 3 / 5, 12 / 5, 0])
    assert drawn.rows[0][:3] == ("blocks.1", "class 0", 0)
    assert "class 0.25 [0.20, 0.30]" in drawn.picture.figure.axes[0].get_title(loc="left")


def test_a_class_without_images_is_empty(make_layer: MakeLayer, make_seen: MakeSeen) -> None:
    layer = make_layer(EXPERT)
    seen = make_seen(layer, labels=[0, 0], names=("here", "nowhere"))
    assert np.isnan([row[3] for row in by_class.class_maps(seen, [layer], {}).rows[3:]]).all()


def test_a_position_is_served_by_its_experts(make_layer: MakeLayer) -> None:
    drawn = by_position.position_maps(make_layer(EXPERT), NUMBERS)
    by_token = np.array([row[-1] for row in drawn.rows]).reshape(5, 3)
    # The last patch is dropped in one image, and expert 1's in the other.
    assert by_token == pytest.approx(
        np.array([[3, 0, 0], [1.5, 1.5, 0], [1.5, 1.5, 0], [0, 3, 0], [0, 3, 0]])
    )
    assert [row[2:4] for row in drawn.rows[::3]] == [("prefix", "prefix"), (0, 0), (0, 1), (1, 0), (1, 1)]
    words = drawn.picture.description
    assert "The class token, which has no place on the map, is served by expert 0 in 100 % of" in words
    assert "The position explains 0.50 of the routing's entropy." in words


def test_a_load_is_over_its_mean(make_layer: MakeLayer) -> None:
    drawn = by_layer.load_map([make_layer(EXPERT), make_layer(EXPERT, num_experts=2, name="blocks.2")])
    # 4 and 5 tokens: over the means of 3 experts and of 2.
    assert [row[2] for row in drawn.rows] == pytest.approx([4 / 3, 5 / 3, 0, 8 / 9, 10 / 9])
    assert texts(drawn.picture) == ["1.33", "1.67", "0.00", "0.89", "1.11"]


def test_loads_have_a_key_where_there_is_no_room_for_numbers(make_layer: MakeLayer) -> None:
    picture = by_layer.load_map([make_layer(EXPERT, num_experts=32)]).picture
    assert texts(picture) == []
    assert key(picture) == ["none", "the mean", "twice that or more"]


def test_names_of_many_layers_do_not_run_into_each_other(make_layer: MakeLayer) -> None:
    names = [f"stages.2.blocks.{number}" for number in range(1, 27, 2)]
    numbers = {
        f"{name}/{what}": 0.5 for name in names for what in ("class", "weight_similarity", "agreement")
    }
    layers = [make_layer(EXPERT, name=name) for name in names]
    for drawn in (
        by_layer.specialisation_by_layer(layers, numbers),
        pairs.similarity_by_depth(layers, numbers),
        stability.over_seeds(names, numbers, 2),
    ):
        assert drawn is not None
        below = drawn.picture.figure.axes[0].get_xticklabels()
        assert [label.get_text() for label in below] == names
        assert {label.get_rotation() for label in below} == {45}


def test_the_legend_of_many_layers_leaves_room_for_the_lines() -> None:
    drawn = stability.over_checkpoints({1: {f"blocks.{number}": 0.5 for number in range(24)}})
    assert drawn is not None
    assert drawn.picture.drawn
    axes, legend = drawn.picture.figure.axes[0], drawn.picture.figure.legends[0]
    occupied = axes.get_tightbbox()
    assert occupied is not None
    assert 0 <= occupied.y0 < occupied.y1 <= legend.get_window_extent().y0
    assert axes.get_window_extent().height > 100


def test_specialisation_is_drawn_with_its_interval(make_layer: MakeLayer) -> None:
    drawn = by_layer.specialisation_by_layer([make_layer(EXPERT)], NUMBERS)
    assert drawn is not None
    assert drawn.rows[0] == ("blocks.1", "class", 0.25, 0.2, 0.3, 0.012, 0.005)
    assert drawn.rows[1][:3] == ("blocks.1", "position", 0.5)
    assert by_layer.specialisation_by_layer([make_layer(EXPERT)], {}) is None


def test_patches_of_an_image_by_expert(make_layer: MakeLayer) -> None:
    layer = make_layer(EXPERT)
    assert per_image.patches_per_image(layer).tolist() == [[2, 1, 0], [0, 4, 0]]
    rows = per_image.patches_cdf([layer]).rows
    of_first = [row[3] for row in rows if row[1] == 0]
    assert of_first == [0.5, 0.5, 1, 1, 1, 1]  # none, one, two ... patches at most


def test_experts_that_the_legend_does_not_name_are_grey(make_layer: MakeLayer) -> None:
    picture = per_image.patches_cdf([make_layer(EXPERT, num_experts=32)]).picture
    assert key(picture) == [str(expert) for expert in (0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15)]
    assert {line.get_color() for line in picture.figure.axes[0].get_lines()[16:]} == {FAINT}
    assert picture.description.endswith("Experts from 16 on are grey.")


def test_experts_of_an_image(make_layer: MakeLayer) -> None:
    drawn = per_image.experts_per_image([make_layer(EXPERT), make_layer([[0] * 5] * 2, name="blocks.2")])
    assert [row[2] for row in drawn.rows] == [0, 0, 1, 0, 0, 1, 0, 0]
    assert "mean 2.0 of 3" in drawn.picture.figure.axes[0].get_title(loc="left")


def test_experts_that_serve_the_same_tokens(make_layer: MakeLayer) -> None:
    assert pairs.together([make_layer(EXPERT)]) is None
    both = np.array([[4, 1, 0], [1, 2, 0], [0, 0, 0]], np.float32)
    drawn = pairs.together([make_layer(EXPERT, together=both)])
    assert drawn is not None
    assert [row[3] for row in drawn.rows] == [1, 0.25, 0, 0.5, 1, 0, 0, 0, 0]


def test_similarity_by_depth_is_of_what_was_measured(make_layer: MakeLayer) -> None:
    layers = [make_layer(EXPERT), make_layer(EXPERT, name="blocks.2")]
    assert pairs.similarity_by_depth(layers, {}) is None
    drawn = pairs.similarity_by_depth(layers, {"blocks.1/weight_similarity": 0.5})
    assert drawn is not None
    assert drawn.rows[0] == ("blocks.1", "weights", 0.5)


def test_images_say_who_serves_each_patch(make_layer: MakeLayer, make_seen: MakeSeen) -> None:
    layer = make_layer(EXPERT, gate=np.linspace(0, 1, 10, dtype=np.float32).reshape(2, 5))
    seen = make_seen(layer, labels=[0, 1], predicted=[0, 0])
    (drawn,) = images.patches_by_expert(seen, [layer], two_images())
    assert texts(drawn.picture) == ["0", "0", "1", *"1111"]  # a dropped patch has no number
    assert drawn.rows[3][4:7] == (1, 1, -1)
    assert caption(seen, 1) == "class 1\ntaken for class 0\nimage 1"
    assert "The class token (or registers) has no place in the image" in drawn.picture.description
    hatches = [patch.get_hatch() for axes in drawn.picture.figure.axes for patch in axes.patches]
    assert hatches == [looks.DROPPED_HATCH]


def test_many_images_are_several_pictures(make_layer: MakeLayer, make_seen: MakeSeen) -> None:
    layer = make_layer(EXPERT * 4)
    shown = ShownImages(np.arange(8), np.ones((8, 4, 4, 3)))
    drawn = images.patches_by_expert(make_seen(layer, labels=[0, 1] * 4), [layer], shown)
    assert [one.name for one in drawn] == ["images_1", "images_2"]
    assert sum(len(one.rows) for one in drawn) == 8 * 4
    assert images.patches_by_expert(make_seen(layer, labels=[0, 1] * 4), [], shown) == []


def test_no_two_of_64_experts_look_the_same() -> None:
    assert len({look_of(expert) for expert in range(len(EXPERT_COLOURS) * len(EXPERT_HATCHES))}) == 64


def test_a_legend_is_read_line_by_line() -> None:
    # Columns of 3, 2 and 2 in the order in which matplotlib fills them: 0 1 2 / 3 4 5 / 6.
    assert looks.in_lines([0, 1, 2, 3, 4, 5, 6], 3) == [0, 3, 6, 1, 4, 2, 5]


def test_matrices_of_many_experts_have_no_numbers(make_layer: MakeLayer) -> None:
    few, many = (make_layer([[0]], num_experts=number, grid=(1, 1)) for number in (4, 20))
    drawn = [pairs.similarity([layer], "weight_similarity") for layer in (few, many)]
    assert [len(texts(one.picture)) for one in drawn] == [16, 0]


def test_a_slot_is_drawn_over_an_even_mixture(make_layer: MakeLayer, make_seen: MakeSeen) -> None:
    layer = make_layer(EXPERT)
    dispatch, combine = np.full((2, 5, 3, 2), 0.2), np.full((2, 5, 3, 2), 1 / 6)
    dispatch[0, :, 1, 1] = [0, 0.6, 0.4, 0, 0]
    combine[0, :, 1] = [0.1, 0.7 / 3]
    mixtures = Mixtures("blocks.1", (2, 2), 1, dispatch, combine)
    drawn = dispatch_maps(make_seen(layer, labels=[0, 1]), mixtures, two_images())
    slot = [row for row in drawn.rows if row[:3] == (0, 1, 1)]
    assert [row[5] for row in slot] == pytest.approx([0, 3, 2, 0, 0])  # of 5 tokens
    assert slot[0][3] == pytest.approx(0.7 / 3)
    # The panels of a row: the image, then experts 0 to 2; the strongest slot of expert 1 is the second.
    strongest = drawn.picture.figure.axes[2].images[-1].get_array()
    assert strongest is not None
    assert (np.asarray(strongest)[..., 3].argmax(), strongest.shape) == (0, (2, 2, 4))


def test_training_is_read_from_the_rows(tmp_path: Path) -> None:
    rows = [
        {"step": 2, "epoch": 1, "train/routing/blocks.3/entropy": 0.5, "train/routing/entropy": 0.5},
        {"step": 4, "epoch": 1, "routing/blocks.3/entropy": 0.25, "routing/blocks.10/dropped_fraction": 0.5},
        {"step": 5, "routing/blocks.3/entropy": float("nan"), "routing/blocks.3/entropies": 1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6')
    drawn = over_training(tmp_path)
    assert drawn is not None
    assert drawn.rows == [
        ("blocks.3", "entropy", "training", 2, 0.5),
        ("blocks.3", "entropy", "test", 4, 0.25),
        ("blocks.10", "dropped_fraction", "test", 4, 0.5),
    ]
    only = over_training(tmp_path, ["blocks.10"])
    assert only is not None
    assert len(only.rows) == 1


@pytest.mark.parametrize("text", [None, "", '{"step": 1}\n', "[]\n7\n", '{"routing/a/entropy": 1}\n'])
def test_rows_that_tell_nothing_are_no_picture(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert over_training(tmp_path) is None


def test_what_was_not_measured_is_said() -> None:
    assert interval(NUMBERS, "blocks.1/class") == "0.25 [0.20, 0.30]"
    assert interval(NUMBERS, "blocks.1/position") == "0.50"
    assert interval({}, "blocks.1/class") == "not measured"
    assert chance(NUMBERS, "blocks.1/class") == "by chance 0.01, p 0.005"
    assert beside({}, "blocks.1", "next_layer") == "next layer not measured"
    assert np.isnan(
        [number({"a": value}, "a") for value in (None, "1", True, [1], float("nan"), 10**400)]
    ).all()


def test_stability_is_drawn_where_it_was_measured() -> None:
    assert over_seeds(["blocks.1"], {}, 1) is None
    drawn = over_seeds(["blocks.1"], {"blocks.1/agreement": 0.75}, 3)
    assert drawn is not None
    assert drawn.rows == [("blocks.1", "agreement", 0.75)]
    assert "3 seeds" in drawn.picture.description
    assert over_checkpoints({}) is None
    moments = over_checkpoints({10: {"blocks.1": 0.5}, 20: {"blocks.1": 0.75}})
    assert moments is not None
    assert moments.rows == [("blocks.1", 10, 0.5), ("blocks.1", 20, 0.75)]


def test_pictures_are_saved_with_their_numbers(make_layer: MakeLayer, tmp_path: Path) -> None:
    drawn = by_layer.load_map([make_layer(EXPERT)])
    drawn.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"experts_by_layer.svg", "experts_by_layer.csv"}
    drawn.save(tmp_path, FORMATS)
    beginnings = {end: (tmp_path / f"experts_by_layer.{end}").read_bytes()[:5] for end in FORMATS}
    assert beginnings == {"png": b"\x89PNG\r", "pdf": b"%PDF-"}
    lines = (tmp_path / "experts_by_layer.csv").read_text().splitlines()
    assert lines[0] == "layer,expert,slots_over_mean"
    assert len(lines) == 4
    assert svg(drawn.picture, "p").startswith("<svg ")


def test_letters_that_a_font_lacks_are_no_warning(
    make_layer: MakeLayer, make_seen: MakeSeen, tmp_path: Path
) -> None:
    layer = make_layer(EXPERT)
    seen = make_seen(layer, labels=[0, 1], names=("水", "森"))
    by_class.class_maps(seen, [layer], NUMBERS).save(tmp_path)
    assert "水" in (tmp_path / "experts_by_class.svg").read_text(encoding="utf-8")


def test_names_of_others_are_no_formulas(make_layer: MakeLayer, make_seen: MakeSeen) -> None:
    layer = make_layer(EXPERT)
    seen = make_seen(layer, labels=[0, 1], names=("<b>$x_{", "a\nb\x1b"))
    (drawn,) = images.patches_by_expert(seen, [layer], two_images())
    assert "&lt;b&gt;$x_{" in svg(drawn.picture, "p")


def test_a_row_of_a_stranger_may_hold_numbers_that_are_none(tmp_path: Path) -> None:
    from routerbench.inspection.figures.rows import read_rows

    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "a": 1{"0" * 400}, "b": NaN, "c": 2}}\nno row\n')
    (row,) = read_rows(tmp_path)
    assert row.numbers == {"step": 1.0, "c": 2.0}
