"""Changed scores: what each change does to a few tokens, and that nothing else is touched."""

import numpy as np
import pytest
import torch
from torch import Tensor

from routerbench.build import build_router, router_names
from routerbench.evaluations.routers.matching import co_occurrence, matched, reordered
from routerbench.evaluations.routers.rescored import (
    Kept,
    Mean,
    OfImageBefore,
    OfPosition,
    has_scores,
    rescored,
    without_first,
)
from routerbench.moe.router import Router

WITH_SCORES = sorted(set(router_names()) - {"hash", "random", "uniform", "soft_identity"})


def router_of(name: str, **settings: object) -> Router:
    router = build_router(name, width=8, num_experts=4, **settings).eval()
    router(torch.randn(1, 8, 8))  # whose parameters have their shapes then
    if name == "sigmoid_bias":
        router.load_state_dict({**router.state_dict(), "bias": torch.tensor([0.1, -0.1, 0.0, 0.05])})
    return router


def same(one: Router, other: Router, tokens: Tensor) -> bool:
    plans = [router(tokens).plan for router in (one, other)]
    pairs = zip(*(plan.dense() for plan in plans), strict=True)
    return all(torch.allclose(own, its, atol=1e-5) for own, its in pairs)


def test_which_routers_have_scores() -> None:
    assert [name for name in router_names() if has_scores(router_of(name))] == WITH_SCORES


@pytest.mark.parametrize("name", WITH_SCORES)
def test_scores_that_stay_as_they_are_change_nothing(name: str) -> None:
    router, tokens = router_of(name), torch.randn(3, 8, 8)
    state = {key: value.clone() for key, value in router.state_dict().items()}
    assert same(rescored(router, lambda scores: scores), router, tokens)
    rescored(router, torch.neg)(tokens)
    assert all(torch.equal(value, state[key]) for key, value in router.state_dict().items())


@pytest.mark.parametrize("scale", [1.0, 40.0, 1000.0])
def test_a_soft_router_of_any_sharpness_is_itself_on_its_own_scores(scale: float) -> None:
    router, tokens = router_of("soft"), torch.randn(2, 6, 8)
    with torch.no_grad():
        router.get_parameter("scale").fill_(scale)
    assert same(rescored(router, lambda scores: scores), router, tokens)
    frozen = rescored(router, lambda scores: OfPosition(scores.mean(0))(scores))
    assert all(weights.isfinite().all() for weights in frozen(tokens).plan.dense())


def test_the_first_choice_is_forbidden() -> None:
    scores = torch.tensor([[[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]]])
    left = without_first(scores)
    assert left.argmax(-1).tolist() == [[2, 0]]
    assert left.softmax(-1)[0, 0, 0] == 0
    # Of slots, those of the expert with the largest sum of exponentials: 2 e^1 < e^2 here.
    slots = torch.tensor([[[[1.0, 1.0], [2.0, -9.0]]]])
    left = without_first(slots)
    assert (left[..., 0, :] == 1).all()
    assert (left[..., 1, :] < -1000).all()


@pytest.mark.parametrize("name", WITH_SCORES)
def test_another_expert_serves_when_the_first_is_forbidden(name: str) -> None:
    router, tokens = router_of(name, **({"dropless": True} if "token" in name else {})), torch.randn(2, 8, 8)
    first = router(tokens).plan.gates.argmax(-1)
    plan = rescored(router, without_first)(tokens).plan
    assert not (plan.gates.argmax(-1) == first).any()
    assert all(weights.isfinite().all() for weights in plan.dense())


def test_scores_of_the_image_before() -> None:
    # Three images of two tokens, in two groups: the second group is one image that was left over.
    change = OfImageBefore(2)
    first = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    assert change(first).flatten().tolist() == [1, 2, 1, 2]  # none was before the first
    assert change(torch.tensor([[[5.0], [6.0]]])).flatten().tolist() == [3, 4]
    assert change(torch.tensor([[[7.0], [8.0]]])).flatten().tolist() == [5, 6]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_image_before_is_the_same_however_images_come_in_batches(batch_size: int) -> None:
    change, images = OfImageBefore(1), torch.arange(5.0).view(5, 1, 1)
    found = torch.cat([change(batch) for batch in images.split(batch_size)])
    assert found.flatten().tolist() == [0, 0, 1, 2, 3]


def test_mean_scores_of_each_position() -> None:
    mean = Mean(2)
    groups = torch.tensor([[[1.0], [2.0], [3.0], [6.0]]])
    assert mean(groups) is groups
    mean(torch.tensor([[[5.0], [1.0]]]))
    assert mean.value().flatten().tolist() == [3, 3]
    frozen = OfPosition(torch.tensor([[7.0], [8.0]]))
    assert frozen(groups).flatten().tolist() == [7, 8, 7, 8]
    kept = Kept()
    assert kept(groups) is groups is kept.scores


def test_experts_are_matched_by_the_tokens_that_both_take() -> None:
    own, other = np.array([0, 0, 0, 1, 1, 2]), np.array([2, 2, 1, 0, 1, 1])
    counts = co_occurrence(own, other, 3)
    assert counts.tolist() == [[0, 1, 2], [1, 1, 0], [0, 1, 0]]
    assert matched(counts).tolist() == [2, 0, 1]  # 2 + 1 + 1 tokens


@pytest.mark.parametrize("name", WITH_SCORES)
@pytest.mark.parametrize("scorer", ["linear", "cosine"])
def test_reordered_experts_take_each_other_s_place(name: str, scorer: str) -> None:
    router = router_of(name, **({} if name == "soft" else {"scorer": scorer}))
    tokens, order = torch.randn(2, 8, 8), np.array([2, 0, 3, 1])
    own, its = (plan.dense() for plan in (router(tokens).plan, reordered(router, order)(tokens).plan))
    for before, after in zip(own, its, strict=True):
        torch.testing.assert_close(after, before[:, :, order], atol=1e-4, rtol=1e-3)
