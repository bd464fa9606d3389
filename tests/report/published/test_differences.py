import pytest

from routerbench.report.published import published_difference
from routerbench.report.published.differences import soft_minus_sparse


def test_against_token_choice_by_hand() -> None:
    shot, jft = published_difference("expert_choice", "token_choice")
    # Rows 5-10, 6-11, 28-30, 29-31, 35-37, 44-45, 60-61, 65-68, 67-69, 75-77, 93-96, 103-106 of the table.
    tenths = [-5, -10, -2, -1, -2, 0, 1, 7, 0, 9, -3, 6]
    assert shot.metric == "ImageNet 10-shot"
    assert (shot.count, shot.mean) == (12, pytest.approx(sum(tenths) / 12 / 1000, abs=1e-12))
    assert (shot.low, shot.high) == pytest.approx((-0.010, 0.009))
    assert (jft.metric, jft.count, jft.source) == ("JFT precision@1", 12, "Puigcerver et al. 2024, table 9")
    # 0.3 -0.4 0.2 0.1 0.1 0.3 0.5 0.8 0.4 0.7 -0.2 0.6: 3.4 in all.
    assert (jft.mean, jft.low, jft.high) == pytest.approx((0.034 / 12, -0.004, 0.008))


def test_a_difference_turned_round_changes_its_sign() -> None:
    there, back = (published_difference(*pair)[1] for pair in (("soft", "dense"), ("dense", "soft")))
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))
    assert there.count == back.count == 18


def test_without_an_equal_row_nothing_is_said() -> None:
    # Soft routes the tokens of one image, Token Choice in this table those of eight.
    assert published_difference("soft", "token_choice") == ()
    assert published_difference("hash", "dense") == ()


def test_soft_against_sparse_pairs_soft_with_expert_choice_there() -> None:
    assert tuple(soft_minus_sparse()) == published_difference("soft", "expert_choice")
    assert soft_minus_sparse()[0].mean == pytest.approx(0.0573, abs=5e-5)
