"""Costs against formulas written out by hand; a multiply-add is two operations."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from routerbench.build import build_backbone, sparsify
from routerbench.costs import Costs, MemoryMeter, count_flops, static_costs
from routerbench.moe.surgery import moe_layers

D, L, H, S = 16, 2, 64, 17  # width, blocks, hidden width of an MLP, tokens: 4 x 4 patches and a class token
E = 4

# Queries, keys, values and output; attention's two products over S x S; the two layers of the MLP.
ATTENTION = 2 * S * D * 4 * D + 2 * 2 * S * S * D
MLP = 2 * 2 * S * D * H
VIT = 2 * 16 * (3 * 8 * 8) * D + L * (ATTENTION + MLP) + 2 * D * 10


def vit() -> nn.Module:
    return build_backbone("pocket_vit", 10, 32, depth=L, embed_dim=D, num_heads=2)


def costs(router: str, placement: list[int], group: str | int = "image", **settings: Any) -> Costs:
    return static_costs(sparsify(vit(), router, E, placement, group, **settings), (32, 32))


def test_operations_of_a_vit() -> None:
    assert static_costs(vit(), (32, 32)) == Costs(
        VIT, VIT, num_parameters(vit()), num_parameters(vit()), 0.0, 0.0
    )


def test_operations_of_a_vit_do_not_hang_on_the_device() -> None:
    with torch.device("meta"):
        model = vit()
    assert static_costs(model, (32, 32)) == static_costs(vit(), (32, 32))


def test_operations_of_a_convnext() -> None:
    size = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
    model = build_backbone("pocket_convnext", 10, 32, **size)
    # A stem of 4 x 4 patches; blocks (7 x 7 depthwise, an MLP) at sides 8, 4, 2, 1; 2 x 2 steps between.
    positions = [64, 16, 4, 1]
    blocks = sum(n * (2 * 49 * 8 + 2 * 2 * 8 * 32) for n in positions)
    steps = sum(n * 2 * 4 * 8 * 8 for n in positions[1:])
    assert static_costs(model, (32, 32)).flops_per_image == 64 * 2 * 48 * 8 + blocks + steps + 2 * 8 * 10


@pytest.mark.parametrize(("capacity_factor", "num_slots"), [(1.0, 5), (2.0, 9)])
def test_operations_of_a_sparse_router_count_every_slot(capacity_factor: float, num_slots: int) -> None:
    # 17 tokens over 4 experts: 4.25 and 8.5 seats, rounded up.
    found = costs("expert_choice", [1], capacity_factor=capacity_factor)
    slots = E * num_slots
    assert found.flops_per_image == VIT - MLP + 2 * S * D * E + 2 * 2 * slots * D * H
    assert found.slots_per_token == pytest.approx(slots / S)


def test_operations_of_two_layers_add_up_and_their_slots_per_token_is_the_mean() -> None:
    one, two = (costs("token_choice", placement, top_k=2) for placement in ([1], [0, 1]))
    assert two.flops_per_image - VIT == 2 * (one.flops_per_image - VIT)
    # Two choices of 17 tokens over 4 experts: 8.5 seats each, rounded up.
    assert one.slots_per_token == two.slots_per_token == pytest.approx(E * 9 / S)


def test_evaluation_at_another_capacity_has_costs_of_its_own() -> None:
    found = costs("expert_choice", [1], capacity_factor_eval=2.0)
    assert (found.slots_per_token, found.slots_per_token_eval) == (E * 5 / S, E * 9 / S)
    assert found.flops_per_image_eval - found.flops_per_image == 2 * 2 * (E * 4) * D * H
    dropless = costs("token_choice", [1], dropless=True)
    assert (dropless.slots_per_token, dropless.slots_per_token_eval) == (E * 5 / S, E)
    two = costs("token_choice", [1], top_k_eval=2)
    assert (two.slots_per_token, two.slots_per_token_eval) == (E * 5 / S, E * 9 / S)


def test_operations_of_soft_count_mixing() -> None:
    found = costs("soft", [1])
    slots = E * 5
    mixing = 3 * 2 * S * D * slots  # logits, dispatch, combine
    assert found.flops_per_image == VIT - MLP + mixing + 2 * 2 * slots * D * H


def test_operations_are_those_of_one_image_of_the_group() -> None:
    # Two images have 34 tokens: 8.5 seats for each of 4 experts, rounded up to 9, are 18 slots an image.
    found = costs("expert_choice", [1], group=2)
    assert found.flops_per_image == VIT - MLP + 2 * S * D * E + 2 * 2 * (E * 9 // 2) * D * H
    assert found.slots_per_token == pytest.approx(E * 9 / (2 * S))


def test_parameters_that_a_token_meets() -> None:
    dense = num_parameters(vit())
    mlp = 2 * D * H + H + D
    found = costs("expert_choice", [1])
    assert found.params_total == dense + (E - 1) * mlp + E * D
    # 20 slots for 17 tokens: a token meets 20/17 of the 4 experts on average, and all of the gate.
    assert found.params_active == round(dense - mlp + E * D + 20 / 17 * mlp)


def test_a_token_meets_no_more_experts_than_it_chooses() -> None:
    mlp = 2 * D * H + H + D
    found = costs("token_choice", [1], top_k=1, capacity_factor=2.0)
    assert found.slots_per_token > 2
    assert found.params_active == num_parameters(vit()) + E * D
    assert found.params_total == found.params_active + (E - 1) * mlp


def test_more_slots_than_experts_times_tokens_do_not_make_more_parameters() -> None:
    found = costs("expert_choice", [1], capacity_factor=float(E))
    assert found.slots_per_token == E
    assert found.params_active == found.params_total


def test_counting_leaves_the_model_as_it_was() -> None:
    model = sparsify(vit(), "expert_choice", E, [1])
    model.train()
    state = torch.get_rng_state()
    static_costs(model, (32, 32))
    assert model.training
    assert all(layer.training for layer in moe_layers(model).values())
    assert torch.equal(torch.get_rng_state(), state)


def test_peak_memory_is_of_the_run() -> None:
    meter = MemoryMeter.start(torch.device("cpu"))
    torch.ones(2**26)  # a quarter of a GiB
    peak, after = meter.peak_gib(), MemoryMeter.start(torch.device("cpu")).peak_gib()
    if peak is None or after is None:
        pytest.skip("only Linux tells")
    assert 0.2 < peak < 0.4
    assert after < 0.1


def test_a_peak_can_be_forgotten() -> None:
    meter = MemoryMeter.start(torch.device("cpu"))
    torch.ones(2**26)  # a quarter of a GiB
    meter.forget()
    kept = torch.ones(2**24)  # a sixteenth
    peak = meter.peak_gib()
    if peak is None:
        pytest.skip("only Linux tells")
    assert kept.nbytes / 2**30 * 0.9 < peak < 0.2


def test_memory_that_an_earlier_run_left_to_the_process_counts_again() -> None:
    def run() -> list[torch.Tensor]:
        return [torch.ones(4096) for _ in range(2**13)]  # an eighth of a GiB, too small each to be given back

    run()
    meter = MemoryMeter.start(torch.device("cpu"))
    held = run()
    peak = meter.peak_gib()
    if peak is None:
        pytest.skip("only Linux tells")
    assert len(held) == 2**13
    assert 0.1 < peak < 0.2


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped products")
def test_operations_of_grouped_products() -> None:
    # 64 rows of 16 features, shared out to 4 matrices of 16 x 32: what one matrix for all rows takes.
    rows, matrices = torch.randn(64, 16, requires_grad=True), torch.randn(4, 16, 32, requires_grad=True)
    ends = torch.tensor([16, 16, 48, 64], dtype=torch.int32)
    forward = 2 * 64 * 16 * 32

    def run() -> None:
        product = F.grouped_mm(rows, matrices, offs=ends)
        product.backward(torch.randn_like(product))

    assert count_flops(lambda: F.grouped_mm(rows, matrices, offs=ends)) == forward
    assert count_flops(run) == 3 * forward
    both = torch.randn(4, 5, 16), torch.randn(4, 16, 32)
    assert count_flops(lambda: F.grouped_mm(*both)) == 4 * 2 * 5 * 16 * 32
