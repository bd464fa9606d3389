"""Mixup and CutMix of neighbours."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor

from routerbench.mixing import NeighbourMix


def mix_of(end: int | None = None, seed: int = 0, **changes: Any) -> NeighbourMix:
    settings: dict[str, Any] = {"mixup_alpha": 1.0, "cutmix_alpha": 0.0, "label_smoothing": 0.0, **changes}
    return NeighbourMix(Mixup(num_classes=4, **settings), seed, end)


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(8, 3, 6, 6), torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])


def swapped(values: Tensor) -> Tensor:
    """Neighbours in each other's place."""
    return values.view(-1, 2, *values.shape[1:]).flip(1).view(values.shape)


def test_mixup_is_a_weighted_sum_of_neighbours() -> None:
    images, labels = batch()
    mixed, targets = mix_of()(images, labels, 3)
    weight = targets[0, 0]
    assert 0 < weight < 1
    torch.testing.assert_close(mixed, weight * images + (1 - weight) * swapped(images))
    classes = F.one_hot(labels, 4).float()
    torch.testing.assert_close(targets, weight * classes + (1 - weight) * swapped(classes))


def test_cutmix_cuts_a_box_from_the_neighbour_and_counts_its_area() -> None:
    images, labels = batch()
    mixed, targets = mix_of(mixup_alpha=0.0, cutmix_alpha=1.0)(images, labels, 0)
    own = (mixed == images).all(1)
    assert torch.equal(mixed, torch.where(own[:, None], images, swapped(images)))
    assert torch.equal(own, own[:1].expand_as(own))
    weight = own[0].float().mean()
    assert 0 < weight < 1
    classes = F.one_hot(labels, 4).float()
    torch.testing.assert_close(targets, weight * classes + (1 - weight) * swapped(classes))


def test_the_batch_that_was_given_stays_as_it_was() -> None:
    images, labels = batch()
    before = images.clone()
    mix_of()(images, labels, 0)
    assert torch.equal(images, before)


@pytest.mark.parametrize("cutmix_alpha", [0.0, 1.0])
def test_an_even_share_of_the_batch_is_mixed_as_in_the_whole(cutmix_alpha: float) -> None:
    images, labels = batch()
    mix = mix_of(cutmix_alpha=cutmix_alpha)
    whole, targets = mix(images, labels, 5)
    for share in (slice(0, 2), slice(2, 6), slice(6, 8)):
        of_share, its_targets = mix(images[share], labels[share], 5)
        assert torch.equal(of_share, whole[share])
        assert torch.equal(its_targets, targets[share])


def test_a_draw_hangs_on_seed_and_step_alone() -> None:
    images, labels = batch()

    def weights(seed: int) -> list[float]:
        torch.rand(3)
        return [mix_of(seed=seed)(images, labels, number)[1][0, 0].item() for number in range(4)]

    assert weights(0) == weights(0)
    assert len(set(weights(0))) == 4
    assert set(weights(0)).isdisjoint(weights(1))
    state = torch.get_rng_state()
    mix_of()(images, labels, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_from_its_end_on_nothing_is_mixed() -> None:
    images, labels = batch()
    assert mix_of(end=3)(images, labels, 2)[1].dim() == 2
    for number in (3, 9):
        same, classes = mix_of(end=3)(images, labels, number)
        assert torch.equal(same, images)
        assert torch.equal(classes, labels)


def test_a_step_may_go_unmixed() -> None:
    images, labels = batch()
    mix = mix_of(prob=0.5)
    unmixed = [torch.equal(mix(images, labels, number)[0], images) for number in range(20)]
    assert set(unmixed) == {True, False}
