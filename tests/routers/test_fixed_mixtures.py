"""Fixed mixtures by hand."""

import torch
from torch.testing import assert_close

from routerbench.build import build_router


def test_uniform_gives_everybody_the_mean_of_everything() -> None:
    plan = build_router("uniform", width=2, num_experts=2, slots_per_expert=3)(torch.randn(2, 4, 2)).plan
    dispatch, combine = plan.dense()
    assert_close(dispatch, torch.full((2, 4, 2, 3), 1 / 4))
    assert_close(combine, torch.full((2, 4, 2, 3), 1 / 6))


def test_identity_with_a_slot_for_every_token() -> None:
    # Six tokens, three experts of two slots: tokens 0 and 1 to expert 0, and so on.
    plan = build_router("soft_identity", width=2, num_experts=3)(torch.randn(1, 6, 2)).plan
    dispatch, combine = plan.dense()
    assert torch.equal(dispatch.flatten(2)[0], torch.eye(6))
    assert torch.equal(combine.flatten(2)[0], torch.eye(6))


def test_identity_with_fewer_slots_takes_means_of_neighbours() -> None:
    # Three tokens over two slots of length 1.5: the middle token lies half along each.
    plan = build_router("soft_identity", width=2, num_experts=2, slots_per_expert=1)(
        torch.randn(1, 3, 2)
    ).plan
    dispatch, combine = plan.dense()
    assert_close(dispatch[0, :, :, 0], torch.tensor([[2 / 3, 0], [1 / 3, 1 / 3], [0, 2 / 3]]))
    assert_close(combine[0, :, :, 0], torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1]]))


def test_identity_with_more_slots_gives_a_token_the_mean_of_its_slots() -> None:
    plan = build_router("soft_identity", width=2, num_experts=2, slots_per_expert=2)(
        torch.randn(1, 2, 2)
    ).plan
    dispatch, combine = plan.dense()
    assert_close(dispatch.flatten(2)[0], torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]))
    assert_close(combine.flatten(2)[0], torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]))
