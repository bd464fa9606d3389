"""What the families of sparse routers share: seats in training and in evaluation, weights, refusals."""

import copy
import re
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from routerbench.build import build_backbone, build_router, sparsify
from routerbench.moe.plan import SparsePlan

BY_TOKEN = ("token_choice", "sinkhorn_token_choice", "sparse_token_choice", "sigmoid_bias")
BY_EXPERT = ("expert_choice", "sinkhorn_expert_choice", "sparse_expert_choice")


def plans(name: str, **settings: Any) -> tuple[SparsePlan, SparsePlan]:
    """The plans of twelve tokens and four experts in training and in evaluation."""
    router, tokens = build_router(name, 8, 4, **settings), torch.randn(2, 12, 8)
    training, evaluation = router(tokens).plan, router.eval()(tokens).plan
    assert isinstance(training, SparsePlan)
    assert isinstance(evaluation, SparsePlan)
    return training, evaluation


@pytest.mark.parametrize("name", [*BY_TOKEN, *BY_EXPERT, "hash", "random"])
def test_evaluation_at_another_capacity(name: str) -> None:
    training, evaluation = plans(name, capacity_factor_eval=2.0)
    assert (training.num_slots, evaluation.num_slots) == (3, 6)
    # The number of slots as such is of training alone.
    training, evaluation = plans(name, capacity=2, capacity_factor_eval=1.0)
    assert (training.num_slots, evaluation.num_slots) == (2, 3)
    training, evaluation = plans(name, capacity=2)
    assert (training.num_slots, evaluation.num_slots) == (2, 2)


@pytest.mark.parametrize("name", BY_TOKEN)
def test_evaluation_with_other_choices(name: str) -> None:
    training, evaluation = plans(name, top_k_eval=2)
    assert (training.num_slots, evaluation.num_slots) == (3, 6)
    assert (training.demand.sum(), evaluation.demand.sum()) == (2 * 12, 2 * 24)


@pytest.mark.parametrize("name", [*BY_TOKEN, "hash", "random"])
def test_dropless_evaluation_drops_nothing(name: str) -> None:
    training, evaluation = plans(name, capacity_factor=0.5, dropless=True)
    assert training.dropped.any()
    assert not evaluation.dropped.any()
    assert torch.equal(evaluation.load, evaluation.demand)


@pytest.mark.parametrize("name", BY_TOKEN)
def test_weights_over_those_of_the_chosen_experts(name: str) -> None:
    settings = {"top_k": 2, "normalize_combine": True, "noise_std": 0.0}
    training, evaluation = plans(name, dropless=True, **settings)
    assert_close(evaluation.dense()[1].sum((2, 3)), torch.ones(2, 12))
    # A choice that is dropped is not made up for.
    alike = (training.dense()[1].sum(3) - evaluation.dense()[1].sum(3)).abs() < 1e-6
    assert torch.equal(alike, (training.expert_share == evaluation.expert_share))


@pytest.mark.parametrize("name", BY_EXPERT)
def test_weights_over_those_of_the_experts_that_took_the_token(name: str) -> None:
    plan, _ = plans(name, normalize_combine=True)
    assert_close(plan.dense()[1].sum((2, 3)), (~plan.dropped).float())


@pytest.mark.parametrize("name", [*BY_TOKEN, *BY_EXPERT])
def test_normalised_weights_of_extreme_logits_are_finite(name: str) -> None:
    router = build_router(name, 4, 4, normalize_combine=True, noise_std=0.0)
    tokens = (500 * torch.randn(2, 12, 4)).requires_grad_()
    plan = router(tokens).plan
    combine = plan.dense()[1]
    combine.square().sum().backward()
    assert combine.isfinite().all()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("token_choice", {"capacity": 0}, "capacity=0 must be a whole number of at least 1"),
        ("token_choice", {"top_k_eval": 5}, "top_k_eval=5 is more than num_experts=4: give at most that"),
        ("expert_choice", {"capacity_factor_eval": 0.0}, "capacity_factor_eval=0.0 must be a number above 0"),
        (
            "token_choice",
            {"capacity_factor_eval": 2.0, "dropless": True},
            "capacity_factor_eval=2.0 means nothing to dropless=true: leave one out",
        ),
        ("soft", {"noise_std": -1.0}, "noise_std=-1.0 must be a number of at least 0"),
        ("uniform", {"slots_per_expert": 0}, "slots_per_expert=0 must be a whole number of at least 1"),
        ("sigmoid_bias", {"bias_update_rate": 0.0}, "bias_update_rate=0.0 must be a number above 0"),
        ("sparse_token_choice", {"solver": "sgd"}, "solver=sgd is not one of: "),
        (
            "sparse_token_choice",
            {"solver": "newton", "tolerance": 0.0},
            "tolerance=0.0 must be a number above 0",
        ),
        (
            "sparse_expert_choice",
            {"tolerance": 0.01},
            "tolerance=0.01 means nothing to solver=adam: leave it out",
        ),
        (
            "sparse_expert_choice",
            {"solver": "newton", "learning_rate": 0.1},
            "learning_rate=0.1 means nothing to solver=newton: leave it out",
        ),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build_router(name, 8, 4, **settings)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("soft", "batch_priority"),
        ("soft", "capacity_factor_eval"),
        ("soft", "scorer"),
        ("expert_choice", "top_k"),
        ("expert_choice", "dropless"),
        ("expert_choice", "batch_priority"),
        ("hash", "scorer"),
        ("hash", "importance_weight"),
        ("uniform", "noise_std"),
        ("token_choice", "num_iterations"),
        ("sinkhorn_token_choice", "solver"),
    ],
)
def test_settings_that_mean_nothing_to_a_router(name: str, setting: str) -> None:
    with pytest.raises(ValueError, match=rf"^{setting}=1 is not a setting of router={name}, which has: "):
        build_router(name, 8, 4, **{setting: 1})


@pytest.mark.parametrize("name", [*BY_TOKEN, *BY_EXPERT, "hash", "random"])
def test_a_single_expert_is_the_dense_mlp(name: str) -> None:
    dense = build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2).eval()
    # The one sigmoid is no softmax: over the sum of the chosen gates it weighs 1 as well.
    settings: dict[str, Any] = {"normalize_combine": True} if name == "sigmoid_bias" else {}
    moe = sparsify(copy.deepcopy(dense), name, 1, [0, 1], **settings).eval()
    images = torch.randn(3, 3, 32, 32)
    assert_close(moe(images), dense(images), atol=1e-5, rtol=1e-5)
