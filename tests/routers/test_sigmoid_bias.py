"""Balance by a bias: by hand, and moved once per step of the optimizer."""

from typing import cast

import torch

from routerbench.build import build_router
from routerbench.moe.experts import Experts
from routerbench.moe.layer import MoE
from routerbench.routers.sigmoid_bias import SigmoidBias


def router_of(**settings: float | bool | str) -> SigmoidBias:
    """Two experts whose logits are the two entries of a token."""
    router = cast("SigmoidBias", build_router("sigmoid_bias", width=2, num_experts=2, **settings))
    router.scorer.load_state_dict({"weight": torch.eye(2)})
    return router


# Sigmoids 3/4 and 1/2; 2/3 and 1/2; 1/2 and 4/5: two tokens lean to expert 0, one to expert 1.
TOKENS = torch.tensor([[[3.0, 1.0], [2.0, 1.0], [1.0, 4.0]]]).log()


def test_the_bias_chooses_and_the_sigmoid_weighs() -> None:
    router = router_of(capacity=3).eval()
    plan = router(TOKENS).plan
    assert plan.demand.tolist() == [[2, 1]]
    torch.testing.assert_close(plan.dense()[1].sum(3), torch.tensor([[[0.75, 0], [2 / 3, 0], [0, 0.8]]]))
    torch.testing.assert_close(plan.gates[0, 0], torch.tensor([0.6, 0.4]))
    # A bias of 0.2 for expert 1 wins token 1 (2/3 against 0.7), and leaves token 0 (3/4 against 0.7).
    router.bias.copy_(torch.tensor([0.0, 0.2]))
    torch.testing.assert_close(
        router(TOKENS).plan.dense()[1].sum(3), torch.tensor([[[0.75, 0], [0, 0.5], [0, 0.8]]])
    )


def test_two_choices_are_normalised_over_the_two() -> None:
    plan = router_of(top_k=2, normalize_combine=True, capacity=3).eval()(TOKENS).plan
    torch.testing.assert_close(plan.dense()[1].sum(3)[0, 0], torch.tensor([0.6, 0.4]))


def test_the_bias_moves_by_its_rate_towards_balance() -> None:
    router = router_of(bias_update_rate=0.25)
    router(TOKENS)
    router.after_step()
    assert router.bias.tolist() == [-0.25, 0.25]
    # Nothing was asked for since: nothing moves.
    router.after_step()
    assert router.bias.tolist() == [-0.25, 0.25]


def test_what_was_asked_for_before_capacity_counts() -> None:
    # With one slot each, both experts hold one token, but expert 0 was asked for by two.
    router = router_of(bias_update_rate=0.25, capacity=1)
    plan = router(TOKENS).plan
    assert plan.load.tolist() == [[1, 1]]
    router.after_step()
    assert router.bias.tolist() == [-0.25, 0.25]


def test_all_parts_of_a_batch_count_for_one_step() -> None:
    # The first part asks for 2 and 1, the second for 0 and 3: together expert 1 is the one too many ask for.
    router = router_of(bias_update_rate=0.25)
    router(TOKENS)
    router(TOKENS[:, [2, 2, 2]])
    assert router.bias.tolist() == [0, 0]
    router.after_step()
    assert router.bias.tolist() == [0.25, -0.25]


def test_evaluation_moves_and_counts_nothing() -> None:
    router = router_of().eval()
    before = {name: value.clone() for name, value in router.state_dict().items()}
    router(TOKENS)
    assert all(torch.equal(before[name], value) for name, value in router.state_dict().items())


def test_the_bias_balances_what_a_gate_alone_would_not() -> None:
    torch.manual_seed(0)
    router = cast("SigmoidBias", build_router("sigmoid_bias", 8, 4, bias_update_rate=0.01))
    tokens = torch.randn(8, 64, 8) + 1
    before = router(tokens).plan.demand.sum(0)
    for _ in range(200):
        router(tokens)
        router.after_step()
    after = router(tokens).plan.demand.sum(0)
    assert before.max() > 1.5 * before.mean()
    assert after.max() < 1.2 * after.mean()


def test_the_gate_learns_from_the_task() -> None:
    layer = MoE(router_of(), Experts(2, 2, 4))
    layer(TOKENS).square().sum().backward()
    assert isinstance(layer.router, SigmoidBias)
    weight = next(layer.router.scorer.parameters())
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
