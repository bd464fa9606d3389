"""What decays and what does not; the learning rate by hand."""

import copy
import math
import re
from typing import Any

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from routerbench.build import build_backbone, sparsify
from routerbench.moe.surgery import take_shape
from routerbench.optim import make_optimizer
from routerbench.schedules import make_scheduler

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


def decay_and_rate(model: nn.Module, **changes: Any) -> dict[str, tuple[float, float]]:
    """The decay and the share of the learning rate of every parameter by name; each is in one group."""
    settings: dict[str, Any] = {"name": "adamw", "lr": 0.1, "weight_decay": 0.05, **changes}
    groups = make_optimizer(model, **settings).param_groups
    of = {
        id(p): (group["weight_decay"], group.get("lr_scale", 1.0))
        for group in groups
        for p in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(of) == len(list(model.parameters()))
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_the_classifier_may_decay_at_a_rate_of_its_own() -> None:
    model = sparsify(build_backbone("pocket_vit", 10, 32, **TINY), "soft", 4, [0])
    decay = decay_and_rate(model, head_weight_decay=3.0, expert_weight_decay=0.1)
    assert {name for name, (rate, _) in decay.items() if rate == 3.0} == {"head.weight"}
    assert decay["head.bias"] == (0.0, 1.0)
    assert decay["blocks.0.mlp.experts.w1"] == (0.1, 1.0)
    assert decay["blocks.0.mlp.router.phi"] == (0.05, 1.0)


def test_layers_learn_the_slower_the_earlier_they_are_and_experts_with_their_block() -> None:
    model = build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=8, num_heads=2)
    sparsify(model, "token_choice", 4, [0])
    found = decay_and_rate(model, layer_decay=0.5, expert_weight_decay=0.3, head_weight_decay=0.0)
    # Embedding, two blocks, of which the norm follows the last, and the classifier.
    assert found["patch_embed.proj.weight"] == (0.05, 0.125)
    assert found["blocks.0.mlp.experts.w1"] == (0.3, 0.25)
    assert found["blocks.0.mlp.experts.b1"] == (0.0, 0.25)
    assert found["blocks.0.mlp.router.scorer.weight"] == (0.05, 0.25)
    assert found["blocks.0.norm1.weight"] == (0.0, 0.25)
    assert found["blocks.1.mlp.fc1.weight"] == (0.05, 0.5)
    assert found["norm.weight"] == (0.0, 0.5)
    assert found["head.weight"] == (0.0, 1.0)


@pytest.mark.parametrize("layer_decay", [None, 0.75])
@pytest.mark.parametrize("router", ["hash", "soft", "token_choice"])
@pytest.mark.parametrize(
    ("name", "size", "blocks"),
    [
        ("pocket_vit", {}, [0, 5]),
        ("pocket_convnext", {"conv_mlp": True, "use_grn": True}, [1, 3]),
        ("pocket_convnext_iso", {}, [0, 5]),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4, "depths": (1, 1, 1, 1)}, [0, 3]),
    ],
)
def test_every_parameter_is_in_one_group_and_stacked_biases_do_not_decay(
    name: str, size: dict[str, Any], blocks: list[int], router: str, layer_decay: float | None
) -> None:
    model = sparsify(build_backbone(name, 10, 32, **size), router, 2, blocks)
    take_shape(model, (32, 32))
    found = decay_and_rate(model, layer_decay=layer_decay, expert_weight_decay=0.3, head_weight_decay=3.0)
    for parameter, (decay, _) in found.items():
        kind = parameter.rpartition(".")[2]
        if ".experts." in parameter:
            assert decay == (0.3 if kind in ("w1", "w2") else 0.0), parameter
        elif kind == "bias" or "norm" in parameter:
            assert decay == 0.0, parameter
    assert [name for name, (decay, _) in found.items() if decay == 3.0] in (
        ["head.weight"],
        ["head.fc.weight"],
    )


def test_a_step_is_scaled_by_its_layer() -> None:
    model = build_backbone("pocket_vit", 10, 32, **TINY)
    optimizer = make_optimizer(model, name="sgd", lr=0.8, weight_decay=0.0, layer_decay=0.5)
    scheduler = make_scheduler(
        optimizer,
        schedule="constant",
        epochs=1,
        steps_per_epoch=4,
        warmup_epochs=None,
        warmup_steps=2,
        warmup_lr=0.0,
        min_lr=0.0,
    )
    rates = []
    for step in range(1, 4):
        scheduler.step_update(step)
        rates.append(sorted({group["lr"] for group in optimizer.param_groups}))
    assert rates == [[0.1, 0.2, 0.4], [0.2, 0.4, 0.8], [0.2, 0.4, 0.8]]


def test_arguments_reach_the_optimizer() -> None:
    layer = nn.Linear(2, 2)
    adamw = make_optimizer(layer, name="adamw", lr=0.1, weight_decay=0.05, arguments={"betas": [0.8, 0.95]})
    assert {tuple(group["betas"]) for group in adamw.param_groups} == {(0.8, 0.95)}
    sgd = make_optimizer(
        layer, name="sgd", lr=0.1, weight_decay=0.0, arguments={"momentum": 0.5, "nesterov": False}
    )
    assert {(group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {(0.5, False)}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"arguments": {"momentun": 0.9}, "name": "sgdw"},
            "optim.arguments.momentun=0.9 is not taken by optim.name=sgdw, which has: momentum, dampening, "
            "nesterov, caution, corrected_weight_decay, maximize, foreach, differentiable (did you mean "
            "momentum?)",
        ),
        (
            {"arguments": {"betas": [2, 0.9]}},
            "optim.name=adamw with {'betas': [2, 0.9]} cannot be built: Invalid beta parameter at index 0: 2",
        ),
        ({"layer_decay": 0.5}, "optim.layer_decay=0.5: this model does not tell its layers, give null"),
        (
            {"head_weight_decay": 0.5},
            "optim.head_weight_decay=0.5: this model does not tell its classifier, give null",
        ),
        ({"name": "adamm"}, "optim.name=adamm is not a timm optimizer (did you mean adam?)"),
        (
            {"name": "adahessian"},
            "optim.name=adahessian asks for second derivatives, which are not taken: give another",
        ),
        (
            {"arguments": {"betas": [0.9]}},
            "optim.name=adamw with {'betas': [0.9]} cannot be built: list index out of range",
        ),
        (
            {"name": "kronw"},
            "optim.name=kronw keeps lists of tensors, which checkpoints do not: give another",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], text: str) -> None:
    settings = {"name": "adamw", "lr": 0.1, "weight_decay": 0.05, **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make_optimizer(nn.Linear(2, 2), **settings)


@pytest.mark.parametrize("name", list_optimizers(exclude_filters=["adahessian", "kron*"]))
def test_every_optimizer_of_timm_takes_a_step_or_says_what_it_lacks(name: str) -> None:
    model = sparsify(build_backbone("pocket_vit", 10, 32, **TINY), "token_choice", 2, [0])
    before = copy.deepcopy(model.state_dict())
    if name.startswith(("bnb", "fused")):
        with pytest.raises(ValueError, match=f"^optim.name={name} cannot be used here: "):
            make_optimizer(model, name=name, lr=0.01, weight_decay=0.05)
        return
    optimizer = make_optimizer(model, name=name, lr=0.01, weight_decay=0.05)
    for _ in range(2):  # some only look around in the first
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"blocks.0.mlp.experts.w1", "head.weight"} <= changed
