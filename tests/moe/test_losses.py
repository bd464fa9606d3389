"""Auxiliary losses by hand; the published numbers are in the tests of Token Choice."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from routerbench.moe.losses import LossWeights, gshard_loss, importance_loss, load_loss, z_loss
from routerbench.moe.scorer import Logits

NOISE = 0.25 * torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_importance_by_hand() -> None:
    # Summed gates 1.5 and 0.5: mean 1, variance 0.25. The second group is in balance.
    gates = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.2, 0.8], [0.8, 0.2]]])
    assert_close(importance_loss(gates[:1]), torch.tensor(0.25))
    assert_close(importance_loss(gates), torch.tensor(0.125))


def test_load_by_hand() -> None:
    # One token with logits 1 and 0 and noise of deviation 1 that happened to be 0. The threshold is 1: the
    # first expert would be chosen again with probability 1 - Phi(0) = 0.5, the second with 1 - Phi(1).
    logits = torch.tensor([[[1.0, 0.0]]])
    again = 0.5 * math.erfc(1 / math.sqrt(2))
    mean = (0.5 + again) / 2
    expected = ((0.5 - mean) / mean) ** 2
    assert_close(load_loss(logits, logits, noise_std=1.0, top_k=1), torch.tensor(expected))
    # With two choices the threshold is the second largest, 0: 1 - Phi(-1) and 1 - Phi(0).
    mean = (1 - again + 0.5) / 2
    expected = ((0.5 - mean) / mean) ** 2
    assert_close(load_loss(logits, logits, noise_std=1.0, top_k=2), torch.tensor(expected))
    # A threshold of 0.5 twice as far in deviations: noise of 0.5 is the same as logits of twice the size.
    assert_close(
        load_loss(logits, 2 * logits, noise_std=0.5, top_k=1),
        load_loss(2 * logits, 4 * logits, noise_std=1.0, top_k=1),
    )


def test_gshard_by_hand() -> None:
    # Both first choices are expert 0, whose mean gate is 0.7: 4 * (1 * 0.7 + 0 * 0.3) / 2.
    assert_close(gshard_loss(torch.tensor([[[0.8, 0.2], [0.6, 0.4]]])), torch.tensor(1.4))
    # In balance: 4 * (0.5 * 0.5 + 0.5 * 0.5) / 2.
    assert_close(gshard_loss(torch.tensor([[[0.8, 0.2], [0.2, 0.8]]])), torch.tensor(1.0))


def test_z_by_hand() -> None:
    # log(e^0 + e^0) = log 2, and log(e^log3 + e^0) = log 4.
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    assert_close(z_loss(logits), torch.tensor((math.log(2) ** 2 + math.log(4) ** 2) / 2))


@pytest.mark.parametrize("loss", [importance_loss, gshard_loss])
def test_a_balanced_router_pays_the_least(loss: Any) -> None:
    balanced = torch.eye(4).repeat(1, 2, 1)
    collapsed = torch.eye(4)[:1].repeat(1, 8, 1)
    assert loss(balanced) < loss(collapsed)


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits: importance_loss(logits.softmax(-1)),
        lambda logits: load_loss(logits, logits + NOISE, noise_std=0.25, top_k=2),
        lambda logits: gshard_loss(logits.softmax(-1)),
        z_loss,
    ],
    ids=["importance", "load", "gshard", "z"],
)
def test_gradients_agree_with_finite_differences(loss: Any) -> None:
    logits = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (logits,))


def logits_of(noise_std: float) -> Logits:
    clean = torch.tensor([[[1.0, 0.0], [0.5, 0.0]]])
    return Logits(clean, clean + torch.tensor([[[-2.0, 0.0], [0.0, 0.0]]]) * noise_std, noise_std)


def weighted(weights: LossWeights, logits: Logits) -> dict[str, Tensor]:
    return weights.losses(logits, top_k=1)


def test_losses_are_weighted_and_named() -> None:
    logits = logits_of(0.5)
    losses = weighted(LossWeights(importance=0.1, load=0.2, gshard=0.3, z=0.4), logits)
    assert list(losses) == ["importance", "load", "gshard", "z"]
    # Importance and z are of the clean logits, gshard of those that decided.
    assert_close(losses["importance"], 0.1 * importance_loss(logits.clean.softmax(-1)))
    assert_close(losses["load"], 0.2 * load_loss(logits.clean, logits.noisy, 0.5, 1))
    assert_close(losses["gshard"], 0.3 * gshard_loss(logits.noisy.softmax(-1)))
    assert_close(losses["z"], 0.4 * z_loss(logits.clean))


def test_losses_without_weight_are_left_out() -> None:
    assert weighted(LossWeights(0.0, 0.0, 0.0, 0.0), logits_of(0.5)) == {}
    assert list(weighted(LossWeights(0.0, 0.0, 0.0, 1.0), logits_of(0.5))) == ["z"]


def test_there_is_no_load_loss_without_noise() -> None:
    assert list(weighted(LossWeights(1.0, 1.0, 0.0, 0.0), logits_of(0.0))) == ["importance"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((-0.1, 0.0, 0.0, 0.0), "importance_weight=-0.1 must be a number of at least 0"),
        ((0.0, float("nan"), 0.0, 0.0), "load_weight=nan must be a number of at least 0"),
        ((0.0, 0.0, float("inf"), 0.0), "gshard_weight=inf must be a number of at least 0"),
        ((0.0, 0.0, 0.0, -1.0), "z_weight=-1.0 must be a number of at least 0"),
    ],
)
def test_weights_that_make_no_sense(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LossWeights(*weights)
