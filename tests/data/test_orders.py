"""Who gets which samples: worked by hand, and the same for any number of ranks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routerbench.data.orders import ALONE, NUM_SPARES, InOrder, Share, Shuffled


def of_rank(order: Shuffled | InOrder, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [samples.tolist() for samples in order.batches(epoch, start)]


def test_a_rank_trains_on_its_share_of_every_part() -> None:
    # Twelve rows in two parts, 0-5 and 6-11, each cut for three ranks.
    rows = [Share(rank, num_ranks=3, num_parts=2).rows(12).tolist() for rank in range(3)]
    assert rows == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert ALONE.rows(4).tolist() == [0, 1, 2, 3]
    assert Share(0, 1, num_parts=2).rows(4).tolist() == [0, 1, 2, 3]


def test_a_batch_that_cannot_be_shared_out() -> None:
    text = r"^batch_size=10 is no multiple of optim\.accumulation_steps=2 times 3 processes: give one$"
    with pytest.raises(ValueError, match=text):
        Share(0, 3, 2).rows(10)


def test_evaluation_is_cut_into_blocks_of_whole_batches() -> None:
    # Eleven images in batches of four, the last one of three; two ranks.
    first, second = (InOrder(11, 4, Share(rank, 2, 1)) for rank in range(2))
    assert of_rank(first) == [[0, 1, 2, 3]]
    assert of_rank(second) == [[4, 5, 6, 7], [8, 9, 10]]
    assert (len(first), first.num_images) == (1, 4)
    assert (len(second), second.num_images) == (2, 7)
    assert of_rank(second, start=1) == [[8, 9, 10]]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 6))
def test_every_image_is_evaluated_once_in_order(num_images: int, batch_size: int, num_ranks: int) -> None:
    orders = [InOrder(num_images, batch_size, Share(rank, num_ranks, 1)) for rank in range(num_ranks)]
    assert [index for order in orders for batch in of_rank(order) for index in batch] == list(
        range(num_images)
    )
    for order in orders:
        assert order.num_images == sum(len(batch) for batch in of_rank(order))
        assert len(order) == len(of_rank(order))


def test_a_repeated_batch_is_its_images_and_all_of_them_again() -> None:
    order = Shuffled(num_stored=10, batch_size=6, num_repeats=3, seed=0, share=ALONE)
    assert len(order) == 1  # as many as without repeats
    (batch,) = of_rank(order)
    images = [sample % 10 for sample in batch]
    assert images == images[:2] * 3
    assert images[0] != images[1]
    assert [sample // 10 for sample in batch] == [0, 0, 1, 1, 2, 2]
    # The images are the first ones of the epoch without repeats.
    (plain,) = of_rank(Shuffled(10, 6, 1, 0, ALONE))
    assert images[:2] == plain[:2]


def test_repeats_that_do_not_divide_a_batch_are_cut_at_its_size() -> None:
    (batch,) = of_rank(Shuffled(num_stored=10, batch_size=8, num_repeats=3, seed=0, share=ALONE))
    images = [sample % 10 for sample in batch]
    assert len(set(images)) == 3
    assert images == (images[:3] * 3)[:8]
    assert [sample // 10 for sample in batch] == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("num_repeats", [1, 2, 3, 4])
@pytest.mark.parametrize("num_parts", [1, 2])
def test_ranks_together_have_the_batches_of_one(num_repeats: int, num_parts: int) -> None:
    whole = of_rank(Shuffled(37, 8, num_repeats, 5, ALONE), epoch=2)
    for num_ranks in (1, 2, 4):
        shares = [Share(rank, num_ranks, num_parts) for rank in range(num_ranks)]
        orders = [Shuffled(37, 8, num_repeats, 5, share) for share in shares]
        assert sum(order.num_images for order in orders) == 4 * 8
        for number, batch in enumerate(whole):
            together = torch.full((8,), -1)
            for share, order in zip(shares, orders, strict=True):
                together[share.rows(8)] = torch.tensor(of_rank(order, epoch=2)[number])
            assert together.tolist() == batch


def test_an_epoch_can_begin_with_any_batch() -> None:
    order = Shuffled(37, 8, 2, 5, Share(1, 2, 2))
    for start in range(5):
        assert of_rank(order, epoch=3, start=start) == of_rank(order, epoch=3)[start:]


def test_spares_are_the_images_after_it_in_the_epoch() -> None:
    order = Shuffled(50, 10, 1, 0, Share(1, 2, 1))
    whole = [sample for batch in of_rank(Shuffled(50, 10, 1, 0, ALONE)) for sample in batch]
    assert order.spares(0, whole[3]) == whole[4 : 4 + NUM_SPARES]
    assert order.spares(0, whole[-1]) == whole[:NUM_SPARES]  # after the last comes the first
    assert order.spares(1, whole[3]) != order.spares(0, whole[3])
    few = Shuffled(3, 3, 1, 0, ALONE)
    assert sorted(few.spares(0, 1)) == [0, 2]
    assert InOrder(50, 10, ALONE).spares(0, 3) == []
