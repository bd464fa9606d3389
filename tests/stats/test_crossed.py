import math

import numpy as np
import pytest
from scipy import stats

from routerbench.stats import Estimate, crossed_interval, t_interval


def test_by_hand() -> None:
    # Seeds' means 1 and 0, images' means 1, 1, 1, -1, overall 0.5; the rest is 0.
    #   1.5  1.5  1.5  -0.5
    #   0.5  0.5  0.5  -1.5
    # MS_seed = 4 (0.25 + 0.25) / 1 = 2, MS_image = 2 (3 x 0.25 + 2.25) / 3 = 2, MS_residual = 0.
    # Variance (2 + 2) / 8 = 0.5; degrees of freedom 4^2 / (2^2 / 1 + 2^2 / 3) = 3.
    # Over seeds alone: variance 2 / 8 and 1 degree, 12.7062 x 0.5 = 6.35, which is wider.
    differences = np.array([[1.5, 1.5, 1.5, -0.5], [0.5, 0.5, 0.5, -1.5]])
    estimate = crossed_interval(differences, 0.95)
    assert (estimate.mean, estimate.n) == (0.5, 2)
    assert estimate.high == pytest.approx(0.5 + 12.7062 * 0.5, abs=1e-4)
    # At 50 %: 0.7649 root 0.5 = 0.541, against 1 x 0.5 over seeds.
    assert crossed_interval(differences, 0.5).high == pytest.approx(0.5 + 0.76489 * math.sqrt(0.5), abs=1e-4)


def test_images_of_one_difficulty_leave_the_interval_over_seeds() -> None:
    by_seed = np.array([0.01, 0.02, 0.06])
    estimate = crossed_interval(np.repeat(by_seed[:, None], 50, axis=1), 0.95)
    expected = t_interval(by_seed.tolist(), 0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_equal_seeds_leave_the_interval_over_images() -> None:
    by_image = np.random.default_rng(0).choice([-1, 0, 1], 400)
    estimate = crossed_interval(np.repeat(by_image[None], 3, axis=0).astype(np.int8), 0.95)
    expected = t_interval(by_image.astype(float).tolist(), 0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_never_narrower_than_over_seeds() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        differences = generator.choice([-1, 0, 1], (3, 40)).astype(np.int8)
        over_seeds = t_interval(differences.mean(axis=1).tolist(), 0.95)
        assert crossed_interval(differences, 0.95).low <= over_seeds.low + 1e-12


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1), (0, 4), (3, 0)])
def test_below_two_there_is_no_interval(shape: tuple[int, int]) -> None:
    estimate = crossed_interval(np.ones(shape), 0.95)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_no_difference_at_all() -> None:
    assert crossed_interval(np.zeros((3, 8), dtype=np.int8), 0.95) == Estimate(0.0, 0.0, 0.0, 3)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize(("of_seed", "of_image"), [(0.0, 1.0), (0.06, 1.0), (0.1, 0.5), (0.2, 0.0)])
def test_nominal_95_percent_hold_the_mean_so_often(n: int, of_seed: float, of_image: float) -> None:
    """Of 4,000 simulated pairs of 200 images, whose noise has deviation 1."""
    generator, shape = np.random.default_rng([n, int(100 * of_seed)]), (4000, n, 200)
    differences = generator.standard_normal(shape, dtype=np.float32)
    differences += generator.normal(0, of_image, (4000, 1, 200)) + generator.normal(0, of_seed, (4000, n, 1))
    intervals = [crossed_interval(one, 0.95) for one in differences]
    # A true 95 % gives 94.3 to 95.7 in two of three simulations.
    assert 0.93 <= np.mean([it.low <= 0 <= it.high for it in intervals]) <= 0.97


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_nominal_95_percent_t_intervals_hold_the_mean_so_often(n: int) -> None:
    values = np.random.default_rng(n).normal(0.7, 0.01, (4000, n)).tolist()
    intervals = [t_interval(one, 0.95) for one in values]
    assert 0.93 <= np.mean([it.low <= 0.7 <= it.high for it in intervals]) <= 0.97


def test_correctness_of_images_as_it_is_stored() -> None:
    """Whether an image is right is a coin, its chance by seed and image; other images are drawn each time."""
    generator, times, num_images = np.random.default_rng(7), 1000, 100
    held = 0
    for _ in range(times):
        easy = generator.normal(0.7, 0.7, (2, num_images))
        seeds = generator.normal(0, 0.2, (3, 2, 1))
        right = generator.random((3, 2, num_images)) < stats.norm.cdf(easy + seeds)
        estimate = crossed_interval(right[:, 0].astype(np.int8) - right[:, 1], 0.95)
        held += estimate.low <= 0 <= estimate.high
    assert 0.93 <= held / times <= 0.975
