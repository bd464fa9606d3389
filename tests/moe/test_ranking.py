"""The largest of scores: of equals the first, by hand and against a plain sort, however found."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routerbench.moe.ranking import FEW, largest

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@DTYPES
def test_equals_keep_their_order(dtype: torch.dtype) -> None:
    scores = torch.tensor([3.0, 5.0, 3.0, 5.0, 4.0], dtype=dtype)
    for count in range(1, 6):
        assert largest(scores, count, dim=0).tolist() == [1, 3, 4, 0, 2][:count]


@DTYPES
def test_zeros_of_both_signs_are_equals(dtype: torch.dtype) -> None:
    scores = torch.tensor([-1.0, -0.0, 0.0, -0.0, 1e-45, 0.0], dtype=dtype)
    for count in range(1, 7):
        assert largest(scores, count, dim=0).tolist() == [4, 1, 2, 3, 5, 0][:count]


@DTYPES
def test_barred_scores_are_the_last(dtype: torch.dtype) -> None:
    scores = torch.tensor([-math.inf, 1.0, -math.inf, math.inf, -1e30], dtype=dtype)
    for count in range(1, 6):
        assert largest(scores, count, dim=0).tolist() == [3, 1, 4, 0, 2][:count]


@DTYPES
@pytest.mark.parametrize("nan", [math.nan, -math.nan])
def test_what_is_no_number_is_the_largest(dtype: torch.dtype, nan: float) -> None:
    # So that a diverged run ends as such, and does not drop what made it diverge.
    scores = torch.tensor([1.0, 2.0, nan, 3.0, 0.0, -1.0], dtype=dtype)
    for count in range(1, 7):
        assert largest(scores, count, dim=0).tolist() == [2, 3, 1, 0, 4, 5][:count]


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 5))


@given(SHAPES, st.data())
def test_the_largest_are_those_of_a_plain_sort(shape: tuple[int, int, int], data: st.DataObject) -> None:
    # Coarse numbers of both signs, so that many are equal, in any layout.
    scores = torch.randint(
        -3, 4, shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    )
    dim, count = data.draw(st.sampled_from([1, 2, -1])), data.draw(st.integers(1, 2 * FEW))
    count = min(count, shape[dim])
    expected = scores.sort(dim=dim, descending=True, stable=True).indices.narrow(dim, 0, count)
    order = data.draw(st.permutations([0, 1, 2]))
    laid_out = scores.permute(order).contiguous().permute(*[order.index(axis) for axis in range(3)])
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(largest(laid_out.to(dtype) / 7, count, dim), expected)
