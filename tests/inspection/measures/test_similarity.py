"""Similarity of experts, worked by hand."""

import math

import numpy as np
import pytest
import torch

from routerbench.inspection.measures.similarity import between, of_images, of_outputs, of_weights
from routerbench.moe.experts import Experts


def test_images_by_hand() -> None:
    # Of three images expert 0 has 2, 1 and 0 tokens, expert 1 has 1, 0 and 3, expert 2 none. Both occur in
    # the first: 2 + 1 - 1 of it, over 2 + 1, 1 and 3 of all three.
    share = np.array([[2, 1, 0], [1, 0, 0], [0, 3, 0]])
    similarity = of_images(share)
    assert similarity[0, 1] == similarity[1, 0] == pytest.approx(2 / 7)
    assert similarity[0, 0] == similarity[1, 1] == 1
    assert similarity[0, 2] == 0
    assert math.isnan(similarity[2, 2])
    assert between(similarity) == pytest.approx((2 / 7 + 0 + 0) / 3)


def test_no_pair_has_no_mean() -> None:
    assert math.isnan(between(np.ones((1, 1))))


def test_experts_that_are_the_same_are_alike() -> None:
    experts = Experts(3, 8, 16)
    with torch.no_grad():
        for weights in experts.parameters():
            weights.normal_()
            weights[1] = weights[0]
            weights[2] = -weights[0] if weights is experts.w2 or weights is experts.b2 else weights[0]
    weights, outputs = of_weights(experts), of_outputs(experts, torch.randn(20, 8))
    assert weights[0, 1] == pytest.approx(1, abs=1e-6)
    assert outputs[0, 1] == pytest.approx(1, abs=1e-6)
    assert outputs[0, 2] == pytest.approx(-1, abs=1e-6)
    w1, b1, w2, b2 = (values.detach()[0] for values in experts.parameters())
    first = float(w1.square().sum() + b1.square().sum())
    second = float(w2.square().sum() + b2.square().sum())
    assert weights[0, 2] == pytest.approx((first - second) / (first + second), abs=1e-5)
    assert np.allclose(np.diag(outputs), 1)
