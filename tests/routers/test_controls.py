import pytest
import torch

from routerbench.build import build_router
from routerbench.routers.controls import Random

CPU = torch.device("cpu")


def test_hash_by_hand() -> None:
    # Positions 0 to 4 of three experts: 0, 1, 2, 0, 1. With two slots nobody is dropped.
    plan = build_router("hash", width=2, num_experts=3, capacity=2)(torch.randn(1, 5, 2)).plan
    dispatch, combine = plan.dense()
    expected = torch.zeros(1, 5, 3, 2)
    for position, expert, slot in [(0, 0, 0), (3, 0, 1), (1, 1, 0), (4, 1, 1), (2, 2, 0)]:
        expected[0, position, expert, slot] = 1
    assert torch.equal(dispatch, expected)
    assert torch.equal(combine, expected)
    assert plan.load.tolist() == [[2, 2, 1]]


def test_hash_with_two_choices_by_hand() -> None:
    # Token 2 of three experts: 2, and after the last the first again. All first choices come first:
    # experts 0, 1, 2 for tokens 0, 1, 2; one slot each is then full, and the second choices are dropped.
    plan = build_router("hash", width=2, num_experts=3, top_k=2, capacity=1)(torch.randn(1, 3, 2)).plan
    assert plan.gates.tolist() == [[[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]]
    assert plan.dense()[1][..., 0].tolist() == [[[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]]
    assert plan.demand.tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("router", ["hash", "random"])
def test_controls_see_positions_alone(router: str) -> None:
    control = build_router(router, width=4, num_experts=4, top_k=2)
    one, other = control(torch.randn(2, 12, 4)).plan, control(torch.randn(2, 12, 4)).plan
    assert torch.equal(one.dense()[1], other.dense()[1])
    assert torch.equal(one.gates[0], one.gates[1])


def test_random_draws_differ_between_routers_and_stay_within_one() -> None:
    one, other = (build_router("random", width=4, num_experts=8) for _ in range(2))
    tokens = torch.randn(1, 32, 4)
    assert torch.equal(one(tokens).plan.gates, one(tokens).plan.gates)
    assert not torch.equal(one(tokens).plan.gates, other(tokens).plan.gates)


def test_random_does_not_disturb_other_randomness() -> None:
    router = build_router("random", width=4, num_experts=8)
    state = torch.get_rng_state()
    router(torch.randn(1, 32, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("length", [1, 7, 16, 33])
def test_a_longer_group_keeps_the_draw_of_its_first_positions(length: int) -> None:
    router = build_router("random", width=4, num_experts=5, top_k=2)
    assert isinstance(router, Random)
    assert torch.equal(router.choose(length, CPU), router.choose(100, CPU)[:length])


def test_random_is_about_balanced() -> None:
    # 4,000 tokens over 8 experts: 500 each, with a standard deviation of about 21.
    plan = build_router("random", width=1, num_experts=8)(torch.zeros(1, 4000, 1)).plan
    assert plan.demand.sum() == 4000
    assert (plan.demand - 500).abs().max() < 100


def test_random_draws_on_the_cpu_whatever_the_default_device() -> None:
    router = build_router("random", width=4, num_experts=5)
    assert isinstance(router, Random)
    expected = router.choose(3, CPU)
    with torch.device("meta"):
        assert torch.equal(router.choose(3, CPU), expected)


def test_the_draw_can_be_a_step_of_a_compiled_model() -> None:
    torch.library.opcheck(torch.ops.routerbench.random_orders.default, (7, 12, 5))
