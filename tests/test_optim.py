"""What decays and what does not; the learning rate by hand."""

import math

import pytest
import torch
from torch import nn

from routerbench.build import build_backbone, sparsify
from routerbench.moe.surgery import take_shape
from routerbench.optim import make_optimizer, make_scheduler

TINY = {"depth": 1, "embed_dim": 8, "num_heads": 2}


def decayed(model: nn.Module) -> set[str]:
    """The names of the parameters that decay; all others must be in the optimizer too."""
    optimizer = make_optimizer(model, name="adamw", lr=0.1, weight_decay=0.05)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay.values()) == {0.05, 0.0}
    assert decay.keys() == {id(parameter) for parameter in model.parameters()}
    return {name for name, parameter in model.named_parameters() if decay[id(parameter)] == 0.05}


def test_in_a_vit_matrices_decay_and_nothing_else() -> None:
    model = sparsify(build_backbone("pocket_vit", 10, 32, **TINY), "token_choice", 4, [0])
    assert decayed(model) == {
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
        "blocks.0.mlp.router.scorer.weight",
        "blocks.0.mlp.experts.w1",
        "blocks.0.mlp.experts.w2",
        "head.weight",
    }


def test_the_slots_of_soft_decay_and_their_scale_does_not() -> None:
    model = sparsify(build_backbone("pocket_vit", 10, 32, **TINY), "soft", 4, [0])
    of_router = {name for name in decayed(model) if "router" in name}
    assert of_router == {"blocks.0.mlp.router.phi"}


@pytest.mark.parametrize("conv_mlp", [False, True])
def test_in_a_convnext_biases_of_experts_and_response_norms_do_not_decay(conv_mlp: bool) -> None:
    size = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "conv_mlp": conv_mlp, "use_grn": True}
    model = sparsify(build_backbone("pocket_convnext", 10, 32, **size), "hash", 2, [3])
    take_shape(model, (32, 32))
    block = {name.removeprefix("stages.3.blocks.0.") for name in decayed(model) if "stages.3.blocks" in name}
    layer = "mlp.moe" if conv_mlp else "mlp"
    assert block == {"conv_dw.weight", f"{layer}.experts.w1", f"{layer}.experts.w2"}


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_matrices_of_experts_may_decay_at_a_rate_of_their_own(weight_decay: float) -> None:
    model = build_backbone("vit_giant_patch14_dinov2", 10, 28, depth=2, embed_dim=32, num_heads=2)
    sparsify(model, "token_choice", 4, [1])
    optimizer = make_optimizer(
        model, name="adamw", lr=0.1, weight_decay=weight_decay, expert_weight_decay=0.3
    )
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.keys() == {id(parameter) for parameter in model.parameters()}
    rates = {name: decay[id(parameter)] for name, parameter in model.named_parameters()}
    experts = "blocks.1.mlp.experts"
    own = {f"{experts}.w1", f"{experts}.w2", f"{experts}.wg"}
    assert {name for name, rate in rates.items() if rate == 0.3} == own
    assert {rates[f"{experts}.{bias}"] for bias in ("b1", "b2", "bg")} == {0.0}
    assert rates["blocks.1.attn.qkv.weight"] == rates["blocks.1.mlp.router.scorer.weight"] == weight_decay


def test_without_experts_their_decay_says_nothing() -> None:
    model = build_backbone("pocket_vit", 10, 32, **TINY)
    optimizer = make_optimizer(model, name="adamw", lr=0.1, weight_decay=0.05, expert_weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.05]


def test_the_learning_rate_warms_up_in_a_line_and_falls_in_half_a_cosine() -> None:
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(layer, name="adamw", lr=0.8, weight_decay=0.1)
    scheduler = make_scheduler(
        optimizer,
        schedule="cosine",
        epochs=4,
        steps_per_epoch=5,
        warmup_epochs=1,
        warmup_lr=0.0,
        min_lr=0.2,
    )
    rates = [{group["lr"] for group in optimizer.param_groups}]
    for step in range(1, 21):
        scheduler.step_update(step)
        rates.append({group["lr"] for group in optimizer.param_groups})
    # 5 of 20 steps go up to 0.8; at step 10 the cosine is half-way between 0.8 and 0.2, at step 20 at 0.2.
    expected = [0.8 * step / 5 for step in range(5)]
    expected += [0.2 + 0.3 * (1 + math.cos(math.pi * step / 20)) for step in range(5, 21)]
    assert [len(rate) for rate in rates] == [1] * 21
    torch.testing.assert_close([rate.pop() for rate in rates], expected)
    assert expected[10] == pytest.approx(0.5)
    assert expected[20] == pytest.approx(0.2)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), name="adamw", lr=0.8, weight_decay=0.1)
    make_scheduler(
        optimizer,
        schedule="cosine",
        epochs=4,
        steps_per_epoch=5,
        warmup_epochs=0,
        warmup_lr=0.0,
        min_lr=0.2,
    )
    assert {group["lr"] for group in optimizer.param_groups} == {0.8}


@pytest.mark.parametrize(
    ("name", "device", "fused"),
    [("adamw", "cpu", True), ("adam", "cpu", True), ("lamb", "cpu", None), ("adamw", "meta", None)],
)
def test_a_step_of_torchs_own_optimizers_is_one_kernel(name: str, device: str, fused: bool | None) -> None:
    with torch.device(device):
        model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, name=name, lr=0.1, weight_decay=0.05)
    assert {group.get("fused") for group in optimizer.param_groups} == {fused}


def test_the_kernel_takes_the_step_of_adamw() -> None:
    fused, plain = (nn.Linear(4, 4) for _ in range(2))
    plain.load_state_dict(fused.state_dict())
    optimizers = (
        make_optimizer(fused, name="adamw", lr=0.1, weight_decay=0.05),
        torch.optim.AdamW(
            [{"params": [plain.weight], "weight_decay": 0.05}, {"params": [plain.bias], "weight_decay": 0.0}],
            lr=0.1,
            fused=False,
        ),
    )
    for _ in range(3):
        x = torch.randn(5, 4)
        for model, optimizer in zip((fused, plain), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(dict(fused.state_dict()), dict(plain.state_dict()))
