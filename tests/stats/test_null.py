import numpy as np
import pytest
from scipy import stats

from routerbench.stats import noise_of, relabelled, share_interval


def test_noise_by_hand() -> None:
    scores = np.array([[0.70, 0.72, np.nan], [0.5, np.nan, np.nan], [0.1, 0.2, 0.3]])
    expected = [[-0.01, 0.01, np.nan], [np.nan] * 3, [-0.1, 0.0, 0.1]]  # one seed shows no noise
    assert noise_of(scores) == pytest.approx(np.array(expected), nan_ok=True)


def test_labels_stay_within_their_seed_and_missing_seeds_where_they_are() -> None:
    noise = np.arange(12, dtype=float).reshape(4, 3)
    noise[2, 1] = np.nan
    dealt = relabelled(noise, 500, np.random.default_rng(0))
    assert dealt.shape == (500, 4, 3)
    assert np.array_equal(np.sort(dealt, axis=1), np.broadcast_to(np.sort(noise, axis=0), (500, 4, 3)), True)
    assert np.isnan(dealt[:, 2, 1]).all()
    # Each of 4 rows has the first row's noise in a quarter of the permutations: 125 of 500, deviation 10.
    assert np.sum(dealt[:, :, 0] == 0, axis=0) == pytest.approx([125] * 4, abs=40)
    # The seeds are dealt apart: both back in place in a sixteenth of them.
    assert np.mean((dealt[:, 0, 0] == 0) & (dealt[:, 0, 2] == 2)) == pytest.approx(1 / 16, abs=0.04)


def test_the_generator_alone_decides() -> None:
    noise = np.random.default_rng(1).normal(size=(3, 4))
    first, second = (relabelled(noise, 9, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)


def claims(num: int, times: int = 1000) -> np.ndarray:
    return np.arange(times) < num


def test_where_no_row_matters_the_interval_is_that_of_scipy() -> None:
    same = np.tile(claims(40), (5, 1))
    for num in (0, 40, 1000):
        share = share_interval(claims(num), same, 0.95)
        expected = stats.binomtest(num, 1000).proportion_ci(0.95, "exact")
        assert (share.mean, share.n) == (num / 1000, 1000)
        assert (share.low, share.high) == pytest.approx((expected.low, expected.high))


def test_rows_that_matter_widen_it() -> None:
    # Without each of two rows 20 and 60 of 1000. Jackknife: 1/2 (0.02^2 + 0.02^2) = 4e-4, less what chance
    # adds, 1/2 x (0.02 x 0.98 + 0.06 x 0.94) / 2 / 1000 = 1.9e-5. With chance itself, 0.04 x 0.96 / 1000 =
    # 3.84e-5, this is 4.194e-4, the variance of 91.56 trials.
    share = share_interval(claims(40), np.stack([claims(20), claims(60)]), 0.95)
    assert share.low == pytest.approx(stats.beta.ppf(0.025, 0.04 * 91.56, 0.96 * 91.56 + 1), rel=1e-3)
    assert share.high == pytest.approx(stats.beta.ppf(0.975, 0.04 * 91.56 + 1, 0.96 * 91.56), rel=1e-3)
