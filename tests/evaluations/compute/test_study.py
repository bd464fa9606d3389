"""What each image gets under batch priority, and how that hangs together with what becomes of it."""

import csv
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from routerbench.load import FinishedRun

Trained = Callable[..., "FinishedRun"]


def asked(**words: Any) -> Any:
    from routerbench.evaluations.measurement import Asked

    return Asked(**words)


def names(run: "FinishedRun", **words: Any) -> list[str]:
    from routerbench.evaluations.compute.study import modes_of

    return [mode.name for mode in modes_of(run, asked(**words))]


def test_the_modes(trained: Trained) -> None:
    token = trained("router=token_choice")
    bpr = "capacity_factor=0.5 batch_priority=true"
    assert names(token) == [bpr, f"{bpr} group=8"]
    assert names(token, capacity_factors=(0.25, 1.0, "dropless"), groups=(4,)) == [
        "capacity_factor=0.25 batch_priority=true group=4"
    ]
    assert names(trained("router=expert_choice")) == ["capacity_factor=0.5", "capacity_factor=0.5 group=8"]
    assert names(trained("router=soft")) == names(trained("router=dense")) == []


def test_relations_by_hand() -> None:
    from routerbench.evaluations.compute.numbers import relations
    from routerbench.evaluations.seeing.observation import Observation

    # Four images: the surer, the fewer slots; the two right ones have 2 and 3, the wrong ones 6 and 9.
    sureness = np.array([4.0, 3.0, 2.0, 1.0], np.float32)
    logits = np.stack([sureness, np.zeros(4, np.float32)], 1)
    slots = np.array([[1, 1], [1, 2], [3, 3], [4, 5]], np.float32)
    seen = Observation(logits, np.array([0, 0, 1, 1]), slots, np.zeros((4, 2), np.float32), 1.0)
    found = relations(seen, 10.0 + slots.sum(1).astype(np.float64))
    assert (found["top1"], found["slots_right"], found["slots_wrong"]) == (0.5, 2.5, 7.5)
    assert found["slots_right_minus_wrong"] == -5.0
    assert found["slots_right_minus_wrong_low"] < -5 < found["slots_right_minus_wrong_high"]
    assert found["spearman_confidence"] == pytest.approx(-1)
    assert found["executed_flops_per_image"] == 15.0
    assert found["slots_p50"] == 4.5
    # Means of classes 2.5 and 7.5 around 5: 4 * 2.5 ** 2 of 9 + 4 + 1 + 16.
    assert found["between_classes_share"] == pytest.approx(25 / 30)


def test_equal_slots_have_no_relation_to_anything() -> None:
    from routerbench.evaluations.compute.numbers import (
        between_classes_share,
        mean_difference,
        rank_correlation,
    )

    equal, rising = np.full(5, 2.0), np.arange(5.0)
    assert all(math.isnan(value) for value in rank_correlation(equal, rising))
    assert math.isnan(between_classes_share(equal, np.array([0, 0, 1, 1, 1])))
    assert mean_difference(equal, equal) == (0.0, 0.0, 0.0)
    assert all(math.isnan(value) for value in mean_difference(equal, rising[:1]))


def test_intervals_of_the_correlation_hold_zero_as_often_as_they_say() -> None:
    from routerbench.evaluations.compute.numbers import rank_correlation

    rng = np.random.default_rng(0)
    found = [rank_correlation(rng.random(40), rng.random(40)) for _ in range(1000)]
    assert 930 <= sum(low < 0 < high for _, low, high in found) <= 975


def test_the_extremes_are_apart() -> None:
    from routerbench.evaluations.compute.numbers import extremes

    most, least = extremes(np.array([3.0, 1.0, 2.0, 3.0, 0.0]), 6)
    assert (most.tolist(), least.tolist()) == ([0, 3], [4, 1])


def test_what_is_written(trained: Trained, tmp_path: Path) -> None:
    from routerbench.evaluations.run import evaluate

    own = trained("router=token_choice")
    folder = tmp_path / "runs" / own.folder.name
    shutil.copytree(own.folder, folder)
    run = replace(own, folder=folder)
    entries = list(evaluate(run, ["compute"], asked(), again=False))
    for entry in entries:
        name = f"compute_{entry.mode.replace(' ', '_')}"
        with (folder / "eval" / f"{name}_images.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == entry.result["images"]
        slots = [float(row["slots_blocks.0"]) + float(row["slots_blocks.1"]) for row in rows]
        assert np.mean(slots) == pytest.approx(entry.result["slots_per_image"])
        assert np.mean([int(row["correct"]) for row in rows]) == pytest.approx(entry.result["top1"])
        with (folder / "eval" / f"{name}_gallery.csv").open() as file:
            shown = list(csv.DictReader(file))
        # The same images among the same others win the same.
        assert [float(row["slots"]) for row in shown] == [slots[int(row["index"])] for row in shown]
        assert float(shown[0]["slots"]) == max(slots)
        assert float(shown[-1]["slots"]) <= float(shown[5]["slots"])
        assert {path.suffix for path in (folder / "eval").glob(f"{name}_gallery.*")} == {
            ".svg",
            ".csv",
        }


def test_images_of_the_gallery_are_those_of_the_data(trained: Trained) -> None:
    from routerbench.evaluations.compute.gallery import look_at

    run = trained("router=token_choice")
    looked = look_at(run, np.array([3, 1]))
    assert [one.place for one in looked] == [3, 1]
    assert [one.label for one in looked] == run.test.labels[[3, 1]].tolist()
    (images, _), *_ = run.batches(np.array([3]))
    pixels = images[0].permute(1, 2, 0) * torch.tensor(run.config.data.std) + torch.tensor(
        run.config.data.mean
    )
    assert np.allclose(looked[0].image, pixels.clamp(0, 1), atol=1e-6)
    assert looked[0].by_token.shape == (4, 4)


def test_patches_of_layers_with_other_grids() -> None:
    from routerbench.evaluations.compute.gallery import by_patch
    from routerbench.layout import Layout

    # A class token with 9 slots and 2 x 2 patches; 4 x 4 patches of 2 slots each, without a class token.
    taken = {"coarse": np.array([[9, 1, 2, 3, 4]], np.float32), "fine": np.full((1, 16), 2, np.float32)}
    layouts = {"coarse": Layout((2, 2), 1), "fine": Layout((4, 4), 0)}
    found = by_patch(taken, layouts)
    assert found is not None
    coarse = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    assert (2 * found[0] - 2).tolist() == coarse.tolist()


def test_patches_without_a_grid_are_not_drawn() -> None:
    from routerbench.evaluations.compute.gallery import by_patch
    from routerbench.layout import Layout

    flat, on_grid = np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32)
    layouts = {"flat": Layout((1, 4), 0), "on_grid": Layout((2, 2), 0)}
    assert by_patch({"flat": flat}, layouts) is None
    found = by_patch({"flat": flat, "on_grid": on_grid}, layouts)
    assert found is not None
    assert found.tolist() == [[[0, 0], [0, 0]]]


def test_patches_lie_where_the_model_has_them() -> None:
    """PiT has a class token that it does not tell of, and CaiT tells of one that its blocks do not see."""
    import timm

    import routerbench as rb
    from routerbench.evaluations.compute.gallery import by_patch, slots_taken
    from routerbench.layout import layouts_seen

    small = {
        "pit_ti_224": {"img_size": 64, "depth": (1, 1, 2), "base_dims": (8, 8, 8), "heads": (1, 1, 1)},
        "cait_xxs24_224": {"img_size": 64, "depth": 2, "embed_dim": 16, "num_heads": 2},
    }
    for name, arguments in small.items():
        model = timm.create_model(name, num_classes=3, **arguments)
        rb.sparsify(model, router="token_choice", num_experts=2, placement="last_2")
        with torch.no_grad(), layouts_seen(model) as layouts:
            model.eval()(torch.zeros(2, 3, 64, 64))
        found = by_patch(slots_taken(model, 2), layouts)
        assert found is not None
        assert found.shape[0] == 2
        assert found.shape[1] == found.shape[2]
