"""The loop of training: rows, evaluations and checkpoints when they are due, and going on from any step."""

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
from routerbench.moe.surgery import moe_layers
from routerbench.optim import make_scheduler
from routerbench.step import DivergedError, TrainingStep
from routerbench.train import Progress, Row, train


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


@dataclass
class Batches:
    """The same number of batches in each epoch; remembers which epochs were asked for, and from where."""

    num_batches: int
    epochs: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        self.epochs.append((number, start))
        for _ in range(start, self.num_batches):
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


@dataclass
class GivenSteps:
    """Checkpoints that are due after given steps, and remember what they were given."""

    after: tuple[int, ...] = ()
    saved: list[tuple[int, int]] = field(default_factory=list)

    def due(self, progress: Progress) -> bool:
        return progress.step in self.after

    def save(self, progress: Progress) -> None:
        self.saved.append((progress.step, progress.epochs))


def trained(
    model: nn.Module,
    batches: Batches,
    metrics: dict[str, float] | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> tuple[Evaluation, list[Row]]:
    """The loop at rate 0.5 for 3 epochs, and its rows."""
    rows: list[Row] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    evaluation = Evaluation(metrics or {"test/top1": 0.5, "test/loss": 1.0}, np.array([True]), {})
    settings: dict[str, Any] = {
        "epochs": 3,
        "eval_every": 2,
        "log_every_steps": 2,
        "checkpoints": GivenSteps(),
        "evaluate": lambda: evaluation,
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
    step = TrainingStep(
        model,
        list(moe_layers(model).values()),
        optimizer,
        F.cross_entropy,
        mix=None,
        ema=None,
        accumulation_steps=1,
        clip_grad=None,
        autocast=torch.autocast("cpu", enabled=False),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=torch.device("cpu"),
    )
    done = train(
        step,
        batches,
        scheduler,
        Progress() if progress is None else progress,
        log=rows.append,
        **settings,
    )
    return done, rows


def test_the_loop_logs_and_evaluates_when_it_should() -> None:
    batches, progress = Batches(3), Progress()
    done, rows = trained(Flat(), batches, progress=progress)
    assert batches.epochs == [(0, 0), (1, 0), (2, 0)]
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
    assert (progress.step, progress.epochs, progress.num_images) == (9, 3, 18)
    assert progress.seconds > 0
    assert done.metrics == {"test/top1": 0.5, "test/loss": 1.0}
    assert rows[-2]["train/lr"] == 0.0
    assert rows[-2]["train/loss"] == rows[-2]["train/task_loss"] < rows[0]["train/loss"]


def test_rows_tell_every_loss_and_the_routing() -> None:
    model = build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2)
    sparsify(model, "token_choice", 4, [0, 1], importance_weight=0.5, gshard_weight=0.25, z_weight=0.125)
    loader = Batches(1)
    loader.epoch = lambda number, start=0: iter([(torch.randn(4, 3, 32, 32), torch.arange(4))])
    _, rows = trained(model, loader, epochs=1, log_every_steps=1)
    row = rows[0]
    parts = [row[f"train/{name}_loss"] for name in ("task", "importance", "load", "gshard", "z")]
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
    with pytest.raises(DivergedError, match=r"^the loss is nan at step 4"):
        trained(Flat(spoil=4), Batches(10), epochs=1, log_every_steps=log_every_steps)


def test_a_loop_goes_on_in_the_middle_of_an_epoch() -> None:
    batches = Batches(3)
    _, rows = trained(Flat(), batches, progress=Progress(step=4, epochs=1))
    assert batches.epochs == [(1, 1), (2, 0)]
    assert [row["step"] for row in rows] == [6, 6, 8, 9, 9]


def test_a_loop_goes_on_before_an_evaluation_that_is_due() -> None:
    batches = Batches(3)
    _, rows = trained(Flat(), batches, progress=Progress(step=6, epochs=1))
    assert batches.epochs == [(1, 3), (2, 0)]
    assert [row["step"] for row in rows if "test/top1" in row] == [6, 9]
    assert [row["step"] for row in rows if "test/top1" not in row] == [8, 9]


def test_a_run_that_lacks_its_record_alone_is_evaluated_again_without_a_row() -> None:
    done, rows = trained(Flat(), Batches(3), progress=Progress(step=9, epochs=3))
    assert rows == []
    assert done.metrics == {"test/top1": 0.5, "test/loss": 1.0}


def test_checkpoints_are_saved_when_they_are_due() -> None:
    checkpoints = GivenSteps(after=(2, 3, 7))
    trained(Flat(), Batches(3), checkpoints=checkpoints)
    assert checkpoints.saved == [(2, 0), (3, 0), (7, 2)]


def test_a_test_loss_that_is_not_finite_ends_training() -> None:
    with pytest.raises(DivergedError, match=exactly("the test loss is nan at step 6")):
        trained(Flat(), Batches(3), metrics={"test/top1": 0.1, "test/loss": math.nan})


def test_the_best_by_minival_is_saved_with_its_epoch_and_the_first_of_equals_stays() -> None:
    checkpoints, progress = GivenSteps(), Progress()
    accuracies = iter((0.25, 0.5, 0.5, 0.375))

    def evaluate() -> Evaluation:
        metrics = {"test/top1": 0.9, "test/loss": 1.0, "minival/top1": next(accuracies)}
        return Evaluation(metrics, np.array([True]), {})

    trained(
        Flat(),
        Batches(2),
        progress=progress,
        epochs=4,
        eval_every=1,
        checkpoints=checkpoints,
        evaluate=evaluate,
    )
    assert checkpoints.saved == [(2, 1), (4, 2)]
    assert (progress.best_step, progress.best_top1) == (4, 0.5)


def test_without_a_minival_nothing_is_chosen_by_the_test_set() -> None:
    checkpoints, progress = GivenSteps(), Progress()
    trained(Flat(), Batches(2), progress=progress, checkpoints=checkpoints)
    assert (checkpoints.saved, progress.best_step) == ([], 0)
