import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from routerbench.stats import deviations, equivalence_p, holm, paired_p, smallest_detectable


def sample(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.004, 0.01, n)


def t_p(*samples: np.ndarray, mean: float = 0.0, alternative: str = "two-sided") -> float:
    """By scipy: of two paired samples, or of one about a mean."""
    if len(samples) == 2:
        return float(stats.ttest_rel(*samples)[1])
    return float(stats.ttest_1samp(*samples, mean, alternative=alternative)[1])  # pyright: ignore


def sign_flip_p(differences: np.ndarray) -> float:
    """The exact two-sided p: how many of all 2^n signs give so large a mean."""
    signs = np.array(list(product((1, -1), repeat=len(differences))))
    means = np.abs((signs * differences).mean(axis=1))
    return float(np.mean(means >= abs(differences.mean()) - 1e-12))


def test_paired_p_by_hand() -> None:
    # Mean 2, deviation 1: t = 2 root 3. With 2 degrees of freedom p = 1 - t / root(2 + t^2).
    assert paired_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 - math.sqrt(12 / 14))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_paired_p_is_that_of_scipy(n: int) -> None:
    a, b = np.random.default_rng(n).normal([[0.7], [0.69]], 0.01, (2, n))
    assert paired_p(a - b) == pytest.approx(t_p(a, b))
    assert deviations(a - b) == pytest.approx(np.std(a - b, ddof=1))


def test_a_matrix_is_tested_line_by_line_and_missing_pairs_do_not_count() -> None:
    differences = np.random.default_rng(0).normal(0.01, 0.01, (4, 3, 5))
    differences[1, 2, [0, 3]] = np.nan
    p = paired_p(differences)
    assert p.shape == (4, 3)
    assert p[0, 0] == pytest.approx(t_p(differences[0, 0]))
    assert p[1, 2] == pytest.approx(t_p(differences[1, 2, [1, 2, 4]]))


def test_equal_differences_are_certain() -> None:
    assert paired_p(np.array([0.25, 0.25, 0.25])) == 0
    assert paired_p(np.array([-0.25, -0.25])) == 0
    assert paired_p(np.zeros(3)) == 1
    assert equivalence_p(np.full(3, 0.25), 0.5) == 0
    assert equivalence_p(np.full(3, 0.75), 0.5) == 1


def test_rounded_differences_that_are_equal_are_not_certain() -> None:
    # Mean 3 over a deviation of 2 for the 0 that was seen: t = 3 root 3 / 2, p as in the first test.
    t = 3 * math.sqrt(3) / 2
    assert paired_p(np.full(3, 3.0), 2.0) == pytest.approx(1 - t / math.sqrt(2 + t**2))
    wide = np.array([1.0, 5.0, 9.0])
    assert paired_p(wide, 2.0) == paired_p(wide)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, math.nan], [math.nan]])
def test_one_pair_is_no_test(differences: list[float]) -> None:
    values = np.array(differences)
    assert math.isnan(paired_p(values))
    assert math.isnan(equivalence_p(values, 0.003))
    assert math.isnan(deviations(values))


@pytest.mark.parametrize("n", [3, 5, 8])
def test_equivalence_is_two_one_sided_tests_of_scipy(n: int) -> None:
    values = sample(n, n)
    above = t_p(values, mean=-0.01, alternative="greater")
    below = t_p(values, mean=0.01, alternative="less")
    assert equivalence_p(values, 0.01) == pytest.approx(max(above, below))
    assert equivalence_p(-values, 0.01) == pytest.approx(max(above, below))


def test_the_t_test_agrees_with_all_flips_of_signs() -> None:
    # Of normal differences both are exact; they differ by chance and by the steps of 1/128.
    pairs = [(float(paired_p(sample(seed, 8))), sign_flip_p(sample(seed, 8))) for seed in range(40)]
    assert max(abs(t - exact) for t, exact in pairs) < 0.05
    assert np.mean([t - exact for t, exact in pairs]) == pytest.approx(0, abs=0.005)


def test_three_seeds_cannot_be_decided_by_signs() -> None:
    # 2 of the 2^3 signs have the largest mean, whatever the size: why the report has no rank test.
    assert sign_flip_p(np.array([0.3, 0.4, 0.5])) == 0.25


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.5; none below the one before it.
    assert holm(np.array([0.03, 0.01, 0.5, 0.02])) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    # 2 x 0.04 = 0.08; 0.05 may not be below it.
    assert holm(np.array([0.05, 0.04])) == pytest.approx([0.08, 0.08])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_holm_leaves_out_what_is_not_tested() -> None:
    corrected = holm(np.array([[math.nan, 0.01, 0.04], [math.nan] * 3]))
    assert corrected[0, 1:] == pytest.approx([0.02, 0.04])
    assert np.isnan(corrected[0, 0])
    assert np.isnan(corrected[1]).all()
    assert holm(np.empty(0)).size == 0


def test_holm_rejects_what_its_definition_rejects() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        p = generator.beta(0.3, 2, 6)
        rejected: set[int] = set()
        for step, place in enumerate(
            np.argsort(p)
        ):  # the smallest against alpha / 6, the next alpha / 5, ...
            if p[place] > 0.05 / (6 - step):
                break
            rejected.add(int(place))
        assert set(np.flatnonzero(holm(p) <= 0.05).tolist()) == rejected


@pytest.mark.parametrize(("n", "num_pairs"), [(3, 1), (3, 8), (5, 9), (10, 4)])
def test_the_detectable_difference_is_found_so_often(n: int, num_pairs: int) -> None:
    alpha = 0.05 / num_pairs
    difference = smallest_detectable(0.002, n, alpha, 0.8)
    samples = np.random.default_rng(n).normal(difference, 0.002, (40_000, n))
    # The simulated share has a standard error of 0.002.
    assert np.mean(paired_p(samples) < alpha) == pytest.approx(0.8, abs=0.008)


def test_the_detectable_difference_by_hand() -> None:
    # Very many pairs: (1.9600 + 0.8416) deviations over the root of n, as of the normal distribution.
    assert smallest_detectable(1.0, 100_000, 0.05, 0.8) == pytest.approx(2.8016 / math.sqrt(1e5), rel=1e-4)
    assert smallest_detectable(0.0, 5, 0.05, 0.8) == 0
    assert math.isnan(smallest_detectable(1.0, 1, 0.05, 0.8))
    assert smallest_detectable(1.0, 2, 0.05 / 1000, 0.8) > smallest_detectable(1.0, 2, 0.05, 0.8) > 10
