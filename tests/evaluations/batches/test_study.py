"""Batch sensitivity: the numbers by hand, and on runs whose predictions do and do not hang on batch-mates."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from routerbench.evaluations.batches.held import HeldImages, check_all_there, with_images_held
from routerbench.evaluations.batches.study import compared, measurements, sensitivity
from routerbench.evaluations.figures.batches import sensitivity_picture, sensitivity_rows
from routerbench.evaluations.measurement import Asked
from routerbench.modes import Mode

FEW = Asked(num_groupings=3)
GROUPED = ("router=token_choice", "group=8", "capacity_factor=0.5")


def test_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    shuffled = np.array([[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 1, 0]])  # right: 4, 3, 2 of four
    result = compared(shuffled, np.array([1, 1, 1, 1]), labels)  # right: 2 of four
    assert result["top1_by_grouping"] == [1.0, 0.75, 0.5]
    assert (result["top1_mean"], result["top1_min"], result["top1_max"]) == (0.75, 0.5, 1.0)
    assert result["top1_std"] == pytest.approx(0.25)
    assert result["top1_ordered"] == 0.5
    assert result["ordered_lost_points"] == pytest.approx(25)
    assert result["changed_fraction"] == 0.5  # images 1 and 3
    # Of twelve: pair (0, 1) differs on one image, (0, 2) on two, (1, 2) on one.
    assert result["disagreement_fraction"] == pytest.approx(4 / 12)
    assert result["sensitivity_points"] == pytest.approx(25)
    assert result["balanced_mean"] == pytest.approx(0.75)


def test_the_spread_counts_where_the_order_of_classes_costs_nothing() -> None:
    labels = np.zeros(4, dtype=np.int64)
    shuffled = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]])
    result = compared(shuffled, np.array([0, 0, 0, 1]), labels)
    assert result["ordered_lost_points"] == 0
    assert result["sensitivity_points"] == pytest.approx(100 * np.std([3, 3, 4, 2], ddof=1) / 4)


def test_an_image_that_flips_at_random_is_no_sensitivity_to_the_order_of_classes() -> None:
    labels = np.zeros(2000, dtype=np.int64)
    shuffled = np.zeros((4, 2000), dtype=np.int64)
    shuffled[:2, 0] = 1
    ordered = np.repeat([1, 0], [3, 1997])  # 0.125 points less; the groupings vary by 0.029
    found = compared(shuffled, ordered, labels)
    assert found["ordered_lost_points"] == pytest.approx(0.125)
    # t(3) = 3.182, and one more grouping about the mean of four.
    assert found["ordered_noise_points"] == pytest.approx(3.1824 * 0.0288675 * np.sqrt(5 / 4), rel=1e-4)
    assert found["sensitivity_points"] == pytest.approx(0.125)
    shuffled[0, 1:4] = 1  # now they vary by more
    found = compared(shuffled, ordered, labels)
    assert found["ordered_noise_points"] > abs(found["ordered_lost_points"]) > 0
    assert found["sensitivity_points"] == pytest.approx(100 * found["top1_std"])
    assert found["num_images"] == 2000


def test_batch_mates_matter_and_a_group_of_one_image_mends_it(trained: Any) -> None:
    run = trained(*GROUPED)
    results = {measurement.mode: measurement.take() for measurement in measurements(run, FEW)}
    assert list(results) == ["group=8 groupings=3", "group=image groupings=3"]
    own, remedy = results.values()
    assert own["changed_fraction"] > 0
    assert own["sensitivity_points"] > 0
    assert remedy["sensitivity_points"] == pytest.approx(0, abs=1e-9)
    assert remedy["changed_fraction"] == 0
    picture = sensitivity_picture(results)
    assert "group=8 groupings=3: sensitivity" in picture.description
    assert len(list(sensitivity_rows(results))) == 2 * (3 + 1)
    assert {
        layer.images_per_group for layer in run.model.modules() if hasattr(layer, "images_per_group")
    } == {8}


def test_the_same_seed_gives_the_same_numbers(trained: Any) -> None:
    run = trained(*GROUPED)
    first, again, other = (sensitivity(run, Mode(), replace(FEW, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_which_groups(trained: Any) -> None:
    def modes(asked: Asked, *words: str) -> list[str]:
        return [measurement.mode for measurement in measurements(trained(*words), asked)]

    assert modes(Asked(), "router=dense") == []
    assert modes(Asked(), "router=soft") == ["group=image"]
    assert modes(Asked(groups=("image", 4), seed=2), *GROUPED) == ["group=image seed=2", "group=4 seed=2"]
    with pytest.raises(ValueError, match=r"^group=4 cannot be changed in a trained Soft"):
        modes(Asked(groups=(4,)), "router=soft")
    with pytest.raises(ValueError, match=r"^group=0 is neither image nor a number of images$"):
        modes(Asked(groups=(0,)), *GROUPED)
    with pytest.raises(ValueError, match=r"^--groupings=1 leaves nothing to compare: give at least 2$"):
        modes(Asked(num_groupings=1), *GROUPED)


def test_held_images_are_those_that_would_be_read(trained: Any) -> None:
    run = trained(*GROUPED)
    held = with_images_held(run)
    assert isinstance(held.test, HeldImages)
    places = np.array([5, 300, 2, 17, 100, 0, 1, 9, 8])
    for own, other in zip(held.batches(places), run.batches(places), strict=True):
        assert torch.equal(own[0], other[0])
        assert torch.equal(own[1], other[1])
    assert sum(len(labels) for _, labels in held.batches()) == len(run.test.labels)
    run.config.runtime.decoded_cache_gib = 0
    assert with_images_held(run) is run


def test_images_that_are_left_out_are_refused() -> None:
    check_all_there(3, 3)
    text = "data.on_corrupt=skip left out 2 test images that cannot be read"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        check_all_there(1, 3)
