"""A training step against a loss made by hand."""

import contextlib
import copy
import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from routerbench.build import build_backbone, sparsify
from routerbench.evaluate import Batch
from routerbench.moe import losses
from routerbench.moe.surgery import moe_layers
from routerbench.optim import make_optimizer
from routerbench.step import DivergedError, TrainingStep, router_losses

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", enabled=False)
LOSSES = {"importance_weight": 0.5, "load_weight": 0.0, "gshard_weight": 0.25, "z_weight": 0.125}


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def off() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


def moe_vit(**settings: Any) -> nn.Module:
    model = build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2)
    return sparsify(model, "token_choice", 4, [0, 1], **settings).train()


class Flat(nn.Module):
    """One linear layer on the colour of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, **changes: Any) -> TrainingStep:
    """A step on the cross-entropy in single precision, but for the `changes`."""
    settings: dict[str, Any] = {
        "task_loss": F.cross_entropy,
        "mix": None,
        "ema": None,
        "accumulation_steps": 1,
        "clip_grad": None,
        "autocast": FP32,
        "scaler": off(),
        "device": CPU,
        **changes,
    }
    return TrainingStep(model.train(), list(moe_layers(model).values()), optimizer, **settings)


def batch(num_images: int = 4) -> Batch:
    return torch.randn(num_images, 3, 32, 32), torch.arange(num_images) % 10


def step(
    model: nn.Module, images: Tensor, labels: Tensor, lr: float = 1.0, **changes: Any
) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return training_step(model, optimizer, **changes)(images, labels, 0).losses


def gradients(before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    """What plain gradient descent at rate 1 took off."""
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    return {name: (old - new).detach() for (name, old), new in pairs}


def test_the_auxiliary_losses_are_in_the_loss_exactly_once() -> None:
    model = moe_vit(noise_std=0.0, **LOSSES)
    twin = copy.deepcopy(model)
    images, labels = batch()

    logits: list[Tensor] = []

    def score(router: Any, tokens: tuple[Tensor], routing: Any) -> None:
        logits.append(F.linear(tokens[0], router.scorer.weight))

    for layer in moe_layers(twin).values():
        layer.router.register_forward_hook(score)
    total = F.cross_entropy(twin(images), labels)
    for of_layer in logits:
        total = total + 0.5 * losses.importance_loss(of_layer.softmax(-1))
        total = total + 0.25 * losses.gshard_loss(of_layer.softmax(-1))
        total = total + 0.125 * losses.z_loss(of_layer)
    expected = torch.autograd.grad(total, list(twin.parameters()))

    found = step(model, images, labels)
    assert len(logits) == 2
    assert set(found) == {"task", "importance", "gshard", "z"}
    torch.testing.assert_close(torch.stack(list(found.values())).sum(), total)
    by_name = {name: grad for (name, _), grad in zip(twin.named_parameters(), expected, strict=True)}
    torch.testing.assert_close(gradients(twin, model), by_name, atol=1e-5, rtol=1e-4)


def test_without_moe_the_loss_is_the_cross_entropy() -> None:
    model = build_backbone("pocket_vit", 10, 32, depth=1, embed_dim=16, num_heads=2)
    images, labels = batch()
    expected = F.cross_entropy(model(images), labels)
    found = step(model, images, labels)
    assert list(found) == ["task"]
    torch.testing.assert_close(found["task"], expected)


def test_losses_of_the_layers_are_summed_by_name() -> None:
    model = moe_vit(noise_std=0.0, **LOSSES)
    model(batch()[0])
    layers = [layer.routing for layer in moe_layers(model).values()]
    found = router_losses(moe_layers(model).values())
    assert len(layers) == 2
    for name in ("importance", "gshard", "z"):
        torch.testing.assert_close(found[name], sum(routing.losses[name] for routing in layers if routing))


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_mean_of_its_parts(parts: int) -> None:
    # Routers decide for every image alone, so the parts of a batch have the losses of the whole.
    model = moe_vit(noise_std=0.0, **LOSSES)
    whole, before = copy.deepcopy(model), copy.deepcopy(model)
    images, labels = batch(8)
    found = step(model, images, labels, accumulation_steps=parts)
    expected = step(whole, images, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(before, model), gradients(before, whole), atol=1e-5, rtol=1e-4)


def test_a_part_with_fewer_images_counts_less() -> None:
    model = moe_vit(noise_std=0.0, **LOSSES)
    whole = copy.deepcopy(model)
    images, labels = batch(5)
    torch.testing.assert_close(step(model, images, labels, accumulation_steps=2), step(whole, images, labels))


def test_the_losses_are_there_once_under_activation_checkpointing() -> None:
    model = moe_vit(**LOSSES)
    plain, before = copy.deepcopy(model), copy.deepcopy(model)
    model.set_grad_checkpointing(True)  # pyright: ignore[reportCallIssue]
    images, labels = batch()
    torch.manual_seed(1)
    found = step(model, images, labels, accumulation_steps=2)
    torch.manual_seed(1)
    expected = step(plain, images, labels, accumulation_steps=2)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(before, model), gradients(before, plain), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_balancing_bias_moves_once_a_step(parts: int) -> None:
    model = build_backbone("pocket_vit", 10, 32, depth=1, embed_dim=16, num_heads=2)
    sparsify(model, "sigmoid_bias", 4, [0], bias_update_rate=0.125).train()
    (layer,) = moe_layers(model).values()
    for number in (1, 2):
        step(model, *batch(), lr=0.0, accumulation_steps=parts)
        bias = layer.router.state_dict()["bias"]
        assert set((bias / 0.125).abs().tolist()) <= {0.0, *(float(n) for n in range(1, number + 1))}
        assert bias.any()
        assert not layer.router.state_dict()["asked"].any()


@pytest.mark.parametrize(
    ("decay", "warmup", "shares"),
    [
        (0.75, False, [0.0, 0.75, 0.75, 0.75]),
        (0.75, True, [0.0, 1 - 2 ** (-2 / 3), 1 - 3 ** (-2 / 3), 1 - 4 ** (-2 / 3)]),  # 0.37, 0.52, 0.60
        (0.5, True, [0.0, 1 - 2 ** (-2 / 3), 0.5, 0.5]),
    ],
)
def test_the_running_average_keeps_its_share_from_the_second_step_on(
    decay: float, warmup: bool, shares: list[float]
) -> None:
    # The first step is taken as it is, so that nothing of the random start is left. In step n + 1 the average
    # keeps `decay`, or while it warms up timm's 1 - (1 + n)^(-2/3), as long as that is less.
    model = Flat()
    ema = ModelEmaV3(model, decay=decay, use_warmup=warmup)
    take = training_step(model, torch.optim.SGD(model.parameters(), lr=0.5), ema=ema)
    average = torch.zeros_like(model.head.weight)
    for number, share in enumerate(shares):
        take(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 1, 0]), number)
        average = share * average + (1 - share) * model.head.weight.detach()
        torch.testing.assert_close(ema.module.head.weight, average)
    assert ema.module.head.weight.sub(model.head.weight).abs().max() > 1e-3


def test_a_step_does_not_add_to_the_gradient_of_the_one_before() -> None:
    model = moe_vit(noise_std=0.0)
    images, labels = batch()
    twin = copy.deepcopy(model)
    step(model, images, labels, lr=0.0)
    step(model, images, labels)
    once = copy.deepcopy(twin)
    step(once, images, labels)
    torch.testing.assert_close(gradients(twin, model), gradients(twin, once))


@pytest.mark.parametrize("clip_grad", [0.01, 1e6])
def test_the_gradient_is_clipped_by_its_global_norm(clip_grad: float) -> None:
    model, (images, labels) = moe_vit(noise_std=0.0), batch()
    twin, clipped = copy.deepcopy(model), copy.deepcopy(model)
    step(model, images, labels)
    step(clipped, images, labels, clip_grad=clip_grad)
    whole, cut = gradients(twin, model), gradients(twin, clipped)
    norm = math.sqrt(sum(grad.square().sum().item() for grad in whole.values()))
    scale = min(1.0, clip_grad / norm)
    torch.testing.assert_close(
        cut, {name: scale * grad for name, grad in whole.items()}, atol=1e-5, rtol=1e-3
    )


def test_the_gradient_is_clipped_after_the_scale_of_fp16_is_taken_off() -> None:
    model, (images, labels) = moe_vit(noise_std=0.0), batch()
    twin = copy.deepcopy(model)
    step(model, images, labels, clip_grad=0.01, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    norm = math.sqrt(sum(grad.square().sum().item() for grad in gradients(twin, model).values()))
    assert norm == pytest.approx(0.01, rel=1e-2)


def test_the_scale_of_fp16_is_taken_off_by_a_step_in_one_kernel() -> None:
    scaled, plain = Flat(), Flat()
    plain.load_state_dict(scaled.state_dict())
    images, labels = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 1, 0])
    for model, enabled in ((scaled, True), (plain, False)):
        optimizer = make_optimizer(model, name="adamw", lr=0.1, weight_decay=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=enabled)
        for _ in range(3):
            training_step(model, optimizer, scaler=scaler)(images, labels, 0)
    torch.testing.assert_close(dict(scaled.state_dict()), dict(plain.state_dict()))


@pytest.mark.parametrize("clip_grad", [None, 1.0])
def test_fp16_leaves_out_a_step_whose_gradient_overflows(clip_grad: float | None) -> None:
    model = Flat()
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, name="adamw", lr=0.1, weight_decay=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    images, labels = 1e3 * torch.rand(2, 3, 2, 2), torch.tensor([0, 1])
    training_step(model, optimizer, clip_grad=clip_grad, scaler=scaler)(images, labels, 0)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert scaler.get_scale() == 2.0**126


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_router_and_the_losses_stay_in_single_precision(dtype: torch.dtype) -> None:
    model, (images, labels) = moe_vit(), batch()
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    found = step(model, images, labels, lr=0.1, autocast=torch.autocast("cpu", dtype), scaler=scaler)
    assert {loss.dtype for loss in found.values()} == {torch.float32}
    assert all(torch.isfinite(loss) for loss in found.values())
    for layer in moe_layers(model).values():
        assert layer.routing is not None
        assert layer.routing.plan.gates.dtype == torch.float32
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("parts", [1, 4])
def test_autocast_casts_every_weight_once_a_step(cast_weights: Any, parts: int, checkpointing: bool) -> None:
    model, (images, labels) = moe_vit(noise_std=0.0), batch()
    model.set_grad_checkpointing(checkpointing)  # pyright: ignore[reportCallIssue]
    bf16 = torch.autocast("cpu", torch.bfloat16)
    for _ in range(2):
        with cast_weights(model) as counter:
            step(model, images, labels, lr=0.1, accumulation_steps=parts, autocast=bf16)
        assert {"blocks.0.attn.qkv.weight", "blocks.1.mlp.experts.w1"} <= counter.casts.keys()
        assert set(counter.casts.values()) == {1}


def test_the_copies_of_a_step_give_the_gradients_of_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (images, labels) = moe_vit(noise_std=0.0, **LOSSES), batch(8)
    before, anew = copy.deepcopy(model), copy.deepcopy(model)
    bf16 = torch.autocast("cpu", torch.bfloat16)
    step(model, images, labels, accumulation_steps=4, autocast=bf16)
    monkeypatch.setattr("routerbench.step.weights_cast_once", lambda device: contextlib.nullcontext())
    step(anew, images, labels, accumulation_steps=4, autocast=bf16)
    torch.testing.assert_close(gradients(before, model), gradients(before, anew), atol=0, rtol=0)


def test_there_is_noise_in_training_alone() -> None:
    model, images = moe_vit(noise_std=4.0), batch()[0]
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
    layer = moe_layers(model)["blocks.0"]
    assert layer.routing is not None
    assert "load" not in layer.routing.losses


def test_a_loss_that_is_not_finite_stops_before_a_weight_changes_and_names_the_layer() -> None:
    model = moe_vit(noise_std=0.0)
    images, labels = batch()
    with torch.no_grad():
        moe_layers(model)["blocks.1"].experts.w1[:, 0, 0] = math.inf
    before = copy.deepcopy(model.state_dict())
    text = "the loss is nan at step 1: blocks.1.mlp (MoE) is the first layer whose output is not finite"
    with pytest.raises(DivergedError, match=exactly(text)):
        step(model, images, labels)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), equal_nan=True)


def test_a_gradient_that_is_not_finite_names_where_the_backward_pass_first_met_it() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, images: Tensor) -> Tensor:
            # The root of zero is zero, and has no finite slope.
            return self.second((0 * self.first(images.mean((2, 3)))).sqrt())

    text = "the norm of the gradient is nan at step 1: that of first.bias is not finite"
    with pytest.raises(DivergedError, match=exactly(text)):
        step(Root(), torch.ones(2, 3, 2, 2), torch.tensor([0, 1]))


def test_fp16_that_overflows_at_any_scale_has_diverged() -> None:
    model = Flat()
    model.head.weight.register_hook(lambda grad: grad * math.inf)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-13)
    take = training_step(model, torch.optim.SGD(model.parameters(), lr=0.1), scaler=scaler)
    images, labels = torch.ones(2, 3, 2, 2), torch.tensor([0, 1])
    take(images, labels, 0)
    take(images, labels, 1)
    text = (
        "the gradient overflows at step 3 however small the scale of precision=fp16 is: take bf16, or a "
        "smaller optim.lr"
    )
    with pytest.raises(DivergedError, match=exactly(text)):
        take(images, labels, 2)
