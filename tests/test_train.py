"""A training step against a loss made by hand, and the loop around it."""

import contextlib
import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routerbench.build import build_backbone, sparsify
from routerbench.evaluate import Batch, Evaluation
from routerbench.moe import losses
from routerbench.moe.surgery import moe_layers
from routerbench.optim import make_optimizer, make_scheduler
from routerbench.train import DivergedError, Row, Trained, router_losses, train, training_step

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


def batch(num_images: int = 4) -> Batch:
    return torch.randn(num_images, 3, 32, 32), torch.arange(num_images) % 10


def step(
    model: nn.Module, images: Tensor, labels: Tensor, lr: float = 1.0, **changes: Any
) -> dict[str, Tensor]:
    settings: dict[str, Any] = {
        "accumulation_steps": 1,
        "clip_grad": None,
        "autocast": FP32,
        "scaler": off(),
        **changes,
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return training_step(model, list(moe_layers(model).values()), images, labels, optimizer, **settings)


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
            training_step(
                model,
                [],
                images,
                labels,
                optimizer,
                accumulation_steps=1,
                clip_grad=None,
                autocast=FP32,
                scaler=scaler,
            )
    torch.testing.assert_close(dict(scaled.state_dict()), dict(plain.state_dict()))


@pytest.mark.parametrize("clip_grad", [None, 1.0])
def test_fp16_leaves_out_a_step_whose_gradient_overflows(clip_grad: float | None) -> None:
    model = Flat(spoil=1)
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, name="adamw", lr=0.1, weight_decay=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    images, labels = torch.rand(2, 3, 2, 2), torch.tensor([0, 1])
    training_step(
        model,
        [],
        images,
        labels,
        optimizer,
        accumulation_steps=1,
        clip_grad=clip_grad,
        autocast=FP32,
        scaler=scaler,
    )
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert scaler.get_scale() == 512.0


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
    monkeypatch.setattr("routerbench.train.weights_cast_once", lambda device: contextlib.nullcontext())
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


@dataclass
class Batches:
    """The same number of batches in each epoch; remembers which epochs were asked for."""

    num_batches: int
    epochs: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, number: int) -> Iterator[Batch]:
        self.epochs.append(number)
        for _ in range(self.num_batches):
            yield torch.ones(2, 3, 1, 1), torch.zeros(2, dtype=torch.int64)


class Flat(nn.Module):
    """One linear layer on the colour of an image; `spoil` makes its scores infinite at a forward pass."""

    def __init__(self, spoil: int | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.spoil = spoil
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = self.head(images.mean((2, 3)))
        return logits * math.inf if self.calls == self.spoil else logits


def trained(
    model: nn.Module, batches: Batches, metrics: dict[str, float] | None = None, **changes: Any
) -> tuple[Trained, list[Row]]:
    """The loop at rate 0.5 for 3 epochs, and its rows."""
    rows: list[Row] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    evaluation = Evaluation(metrics or {"test/top1": 0.5, "test/loss": 1.0}, np.array([True]), {})
    settings: dict[str, Any] = {
        "epochs": 3,
        "eval_every": 2,
        "log_every_steps": 2,
        "accumulation_steps": 1,
        "clip_grad": None,
        **changes,
    }
    scheduler = make_scheduler(
        optimizer,
        schedule="cosine",
        epochs=3,
        steps_per_epoch=len(batches),
        warmup_epochs=0,
        warmup_lr=0.0,
        min_lr=0.0,
    )
    done = train(
        model,
        batches,
        optimizer,
        scheduler,
        autocast=FP32,
        scaler=off(),
        device=CPU,
        evaluate=lambda: evaluation,
        log=rows.append,
        **settings,
    )
    return done, rows


def test_the_loop_logs_and_evaluates_when_it_should() -> None:
    batches = Batches(3)
    done, rows = trained(Flat(), batches)
    assert batches.epochs == [0, 1, 2]
    # Rows at every second step and at the end of an epoch; evaluations after every second epoch and the last.
    steps = [(row["step"], row["epoch"], "test/top1" in row) for row in rows]
    assert steps == [
        (2, 1, False),
        (3, 1, False),
        (4, 2, False),
        (6, 2, False),
        (6, 2, True),
        (8, 3, False),
        (9, 3, False),
        (9, 3, True),
    ]
    assert done.num_images == 18
    assert done.seconds > 0
    assert done.evaluation.metrics == {"test/top1": 0.5, "test/loss": 1.0}
    assert rows[-2]["train/lr"] == 0.0
    assert rows[-2]["train/loss"] == rows[-2]["train/task_loss"] < rows[0]["train/loss"]


def test_rows_tell_every_loss_and_the_routing() -> None:
    model = moe_vit(noise_std=0.0, **LOSSES)
    loader = Batches(1)
    loader.epoch = lambda number: iter([batch()])
    _, rows = trained(model, loader, epochs=1, log_every_steps=1)
    row = rows[0]
    parts = [row[f"train/{name}_loss"] for name in ("task", "importance", "gshard", "z")]
    assert row["train/loss"] == pytest.approx(sum(parts))
    assert {"train/routing/entropy", "train/routing/blocks.1/load_cv"} <= row.keys()


def test_the_model_trains_after_every_evaluation() -> None:
    model = Flat()
    seen: list[bool] = []
    model.register_forward_pre_hook(lambda *_: seen.append(model.training))
    model.eval()
    trained(model, Batches(1), eval_every=1)
    assert seen == [True, True, True]


@pytest.mark.parametrize("log_every_steps", [1, 2, 100])
def test_a_loss_that_is_not_finite_ends_training_and_names_its_step(log_every_steps: int) -> None:
    # What a run comes to must not hang on how often it is logged.
    with pytest.raises(DivergedError, match=exactly("the loss is nan at step 4")):
        trained(Flat(spoil=4), Batches(10), epochs=1, log_every_steps=log_every_steps)


def test_a_test_loss_that_is_not_finite_ends_training() -> None:
    with pytest.raises(DivergedError, match=exactly("the test loss is nan at step 6")):
        trained(Flat(), Batches(3), metrics={"test/top1": 0.1, "test/loss": math.nan})
