"""Calibration against cases worked by hand."""

import numpy as np
import pytest

from routerbench.evaluations.capacity.calibration import calibration, equal_mass, equal_width


def logits_of(*probabilities: list[float]) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def test_bins_of_equal_width_hold_their_upper_end() -> None:
    confidence, correct = np.array([0.5, 0.51, 0.9, 1.0]), np.array([True, False, True, True])
    bins = equal_width(confidence, correct, 2)
    assert bins.count.tolist() == [1, 3]
    assert bins.accuracy.tolist() == pytest.approx([1.0, 2 / 3])
    assert bins.confidence.tolist() == pytest.approx([0.5, 2.41 / 3])
    # A quarter of the images is 0.5 off, three quarters are (2.41 - 2) / 3 off.
    assert bins.error == pytest.approx(0.25 * 0.5 + 0.75 * 0.41 / 3)


def test_an_empty_bin_has_no_means_and_no_error() -> None:
    bins = equal_width(np.array([0.9, 0.95]), np.array([True, True]), 4)
    assert bins.count.tolist() == [0, 0, 0, 2]
    assert np.isnan(bins.accuracy[:3]).all()
    assert bins.error == pytest.approx(0.075)


def test_bins_of_equal_mass() -> None:
    confidence, correct = np.array([0.9, 0.2, 0.3, 0.8]), np.array([True, False, True, False])
    bins = equal_mass(confidence, correct, 2)
    assert bins.count.tolist() == [2, 2]
    assert bins.confidence.tolist() == pytest.approx([0.25, 0.85])
    assert bins.accuracy.tolist() == [0.5, 0.5]


def test_scores_of_two_images() -> None:
    # The first is right with 0.8, the second wrong with 0.6 while the truth has 0.3.
    found = calibration(logits_of([0.8, 0.1, 0.1], [0.6, 0.3, 0.1]), np.array([0, 1]))
    assert found["ece"] == pytest.approx((0.2 + 0.6) / 2, abs=1e-6)
    assert found["ece_equal_mass"] == pytest.approx((0.2 + 0.6) / 2, abs=1e-6)
    brier = (0.2**2 + 0.1**2 + 0.1**2 + 0.6**2 + 0.7**2 + 0.1**2) / 2
    assert found["brier"] == pytest.approx(brier, abs=1e-6)


def test_who_is_certain_and_right_has_no_error() -> None:
    found = calibration(np.array([[50.0, 0.0], [0.0, 50.0]], np.float32), np.array([0, 1]))
    assert list(found.values()) == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def test_calibrated_guesses_have_almost_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20000)
    correct = rng.random(20000) < confidence
    assert equal_width(confidence, correct).error < 0.02
    assert equal_mass(confidence, correct).error < 0.02
    assert equal_mass(confidence, ~correct).error > 0.3
