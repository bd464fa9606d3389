"""A run that was stopped at any step ends as one that never was: the same bits, rows and metrics."""

import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import PATIENCE_SECONDS, ForkServer, Started
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console

from routerbench import experiment, measure, records
from routerbench.data.image_files import CorruptImageError
from routerbench.identity import identity, run_id
from routerbench.signals import RequeueError, Warned
from routerbench.step import DivergedError, StepResult, TrainingStep

# Python 3.12 warns that forking a process with threads may lock; torch's loader forks.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

EPOCHS, STEPS_PER_EPOCH = 2, 4
# Everything that could go on differently: noise, drop path, parts, Mixup, averages, images cropped at random.
WORDS = (
    "data=folder",
    "data.image_size=16",
    "augment=imagenet",
    f"epochs={EPOCHS}",
    "batch_size=4",
    "optim.accumulation_steps=2",
    "mix.mixup_alpha=0.8",
    "mix.cutmix_alpha=1.0",
    "ema.decay=0.9",
    "data.train_split=train[:16]",
    "data.minival_split=train[16:]",
    "model.drop_path_rate=0.3",
    "+model.arguments.depth=2",
    "+model.arguments.embed_dim=16",
    "+model.arguments.num_heads=2",
    "num_experts=4",
    "runtime.wandb=disabled",
    "runtime.threads=1",
    "runtime.device=cpu",
    "runtime.backend=loop",
    "runtime.log_every_steps=1",
)


UNMIXED = ("mix.mixup_alpha=0", "mix.cutmix_alpha=0")  # images alone have no partner to be mixed with


class KilledError(BaseException):
    """No error of a run, which would be an outcome."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for part, count in (("train", 9), ("val", 3)):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(256, size=(20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


Compose = Callable[..., DictConfig]


@pytest.fixture
def composed(images: Path, tmp_path: Path, composed_once: Compose) -> Compose:
    def compose(results: str, *words: str) -> DictConfig:
        return composed_once(tmp_path / results, *WORDS, f"data.path={images}", "runtime.workers=0", *words)

    return compose


def run(config: DictConfig, warned: Warned | None = None) -> str:
    console = Console(file=io.StringIO())
    return experiment.run(config, command="", repeat="", console=console, title="", warned=warned or Warned())


def folder_of(config: DictConfig) -> Path:
    return records.run_folder(Path(config.runtime.results), run_id(identity(config)))


def recorded(config: DictConfig) -> dict[str, Any]:
    record = records.read_record(folder_of(config))
    assert record is not None
    return record


def outcome(config: DictConfig) -> dict[str, Any]:
    """What must not hang on how often a run was stopped."""
    folder, record = folder_of(config), recorded(config)
    return {
        "status": record["status"],
        "metrics": record["metrics"],
        "rows": (folder / "metrics.jsonl").read_text(),
        "correct": (folder / "correct.npy").read_bytes(),
        **{path.name: path.read_bytes() for path in folder.glob("*.safetensors")},
    }


@pytest.fixture(scope="module")
def undisturbed(
    images: Path, tmp_path_factory: pytest.TempPathFactory, composed_once: Compose
) -> Callable[..., dict[str, Any]]:
    """A function of words to the outcome of a run that was never stopped."""

    @cache
    def of_whole(*words: str) -> dict[str, Any]:
        results = tmp_path_factory.mktemp("whole")
        config = composed_once(results, *WORDS, f"data.path={images}", "runtime.workers=0", *words)
        assert run(config) == "done"
        return outcome(config)

    return of_whole


Undisturbed = Callable[..., dict[str, Any]]


def stopped_at(step: int, config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until so many steps are taken, and then stop without a word."""
    take = TrainingStep.__call__

    def take_or_stop(self: TrainingStep, images: Any, labels: Any, number: int) -> StepResult:
        if number == step:
            raise KilledError
        return take(self, images, labels, number)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", take_or_stop)
        with pytest.raises(KilledError):
            run(config)


# Before a checkpoint, at one, within an epoch and at its end, and before the last step.
QUICK_STEPS = (0, 3, 4, 7)


@pytest.mark.parametrize(
    "step",
    [
        step if step in QUICK_STEPS else pytest.param(step, marks=pytest.mark.slow)
        for step in range(EPOCHS * STEPS_PER_EPOCH)
    ],
)
def test_a_run_stopped_at_any_step_ends_as_one_that_was_not(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    words = ("router=token_choice", "router.noise_std=1.0")
    config = composed("stopped", *words, "runtime.checkpoint_every_steps=3")
    stopped_at(step, config, monkeypatch)
    assert records.read_record(folder_of(config)) is None
    assert run(config) == "done"
    assert outcome(config) == undisturbed(*words)
    record = recorded(config)
    assert record["provenance"]["restarts"] == int(step >= 3)
    images_seen = record["cost"]["images_per_second"] * record["cost"]["train_seconds"]
    assert images_seen == pytest.approx(EPOCHS * STEPS_PER_EPOCH * 4)


@pytest.mark.parametrize(
    ("router", "precision"),
    [
        ("sigmoid_bias", "fp16"),
        ("random", "fp32"),
        ("soft", "bf16"),
        ("sparse_expert_choice", "fp32"),
        ("dense", "fp16"),
    ],
)
def test_every_kind_of_router_goes_on(
    composed: Compose,
    undisturbed: Undisturbed,
    monkeypatch: pytest.MonkeyPatch,
    router: str,
    precision: str,
) -> None:
    words = (f"router={router}", f"precision={precision}", "runtime.backend=bmm")
    config = composed("stopped", *words, "runtime.checkpoint_every_steps=2")
    stopped_at(7, config, monkeypatch)
    assert run(config) == "done"
    assert outcome(config) == undisturbed(*words)


def test_a_run_stopped_again_and_again_ends_as_one_that_was_not(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither the restarts nor the processes that decode its images change a bit of it.
    config = composed("stopped", "runtime.checkpoint_every_steps=1", "runtime.workers=2")
    stopped_at(2, config, monkeypatch)
    after_the_first = datetime.now(timezone.utc).isoformat()
    for step in (3, 7):
        stopped_at(step, config, monkeypatch)
    assert run(config) == "done"
    assert outcome(config) == undisturbed()
    record = recorded(config)
    assert record["provenance"]["restarts"] == 3
    assert record["provenance"]["started"] < after_the_first


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("stopped", "runtime.checkpoint_every_steps=2")
    stopped_at(7, config, monkeypatch)
    latest = folder_of(config) / "checkpoint" / "step-000000006"
    (shard,) = latest.glob("*.safetensors")
    os.truncate(shard, 1000)
    assert run(config) == "done"
    assert outcome(config) == undisturbed()


@pytest.mark.parametrize("step", [0, 3, 5])
def test_a_warning_keeps_the_state_and_the_run_goes_on(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = composed("stopped")
    warned, take = Warned(), TrainingStep.__call__

    def warn(self: TrainingStep, images: Any, labels: Any, number: int) -> StepResult:
        warned.by = "SIGTERM" if number == step else warned.by
        return take(self, images, labels, number)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", warn)
        with pytest.raises(RequeueError, match=f"^stopped by SIGTERM at step {step + 1}, which is kept$"):
            run(config, warned)
    assert records.read_record(folder_of(config)) is None
    assert run(config) == "done"
    assert outcome(config) == undisturbed()


def test_a_warning_during_an_evaluation_loses_neither_it_nor_a_row(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("stopped")
    warned, evaluate = Warned(), measure.evaluate

    def warn(*args: Any, **kwargs: Any) -> Any:
        warned.by = "SIGUSR1"
        return evaluate(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(measure, "evaluate", warn)
        with pytest.raises(RequeueError, match=r"^stopped by SIGUSR1 at step 4, which is kept$"):
            run(config, warned)
    assert run(config) == "done"
    assert outcome(config) == undisturbed()


def command(results: Path, images: Path) -> list[str]:
    """A run of minutes, with two workers, that can be watched by its rows."""
    words = [word for word in WORDS if not word.startswith("epochs")]
    further = [f"data.path={images}", f"runtime.results={results}", "runtime.workers=2", "epochs=300"]
    program = ["-m", "routerbench", "train"]
    return [*program, *words, *further, "runtime.checkpoint_every_steps=3", "eval_every=1000"]


def started(fork_server: ForkServer, results: Path, images: Path) -> Started:
    """The command, in the midst of its steps."""
    process = fork_server.start(*command(results, images))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(results.glob("runs/*/checkpoint/step-*")):
        assert process.poll() is None, process.end()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_scheduler_reads_from_the_exit_code_that_the_run_is_to_be_queued_again(
    images: Path, tmp_path: Path, name: str, fork_server: ForkServer
) -> None:
    process = started(fork_server, tmp_path, images)
    process.send_signal(signal.Signals[name])
    ended = process.end()
    assert ended.returncode == 75
    kept, last = ended.stderr.splitlines()[-2:]
    assert re.fullmatch(rf"\[1/1\] .* seed \d  stopped by {name} at step \d+, which is kept", kept)
    assert last == f"stopped by {name}: the same command goes on with what is not done"
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "record.json").exists()


def test_what_a_killed_process_was_writing_is_taken_away(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("stopped", "runtime.checkpoint_every_steps=3")
    stopped_at(4, config, monkeypatch)
    folder = folder_of(config)
    (folder / ".weights.safetensors.4711").write_text("half")
    shutil.copytree(folder / "checkpoint" / "step-000000003", folder / "checkpoint" / ".step-000000004")
    assert run(config) == "done"
    assert outcome(config) == undisturbed()
    assert not list(folder.rglob(".*"))


def test_a_killed_process_leaves_what_another_goes_on_from(
    images: Path, tmp_path: Path, fork_server: ForkServer
) -> None:
    process = started(fork_server, tmp_path / "killed", images)
    process.kill()
    process.wait()
    (folder,) = (tmp_path / "killed" / "runs").iterdir()
    steps = sorted(int(path.name[5:]) for path in (folder / "checkpoint").glob("step-*"))
    assert steps
    again = started(fork_server, tmp_path / "killed", images)
    while max(int(path.name[5:]) for path in (folder / "checkpoint").glob("step-*")) <= steps[-1]:
        assert again.poll() is None
        time.sleep(0.05)
    again.send_signal(signal.SIGTERM)
    assert f"going on from step {steps[-1]}, restart 1" in again.end().stderr
    rows = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, len(rows) + 1))


def out_of_memory(monkeypatch: pytest.MonkeyPatch, images_at_once: int) -> None:
    """Let a step that gives the model more than so many images at once fail as a GPU does."""
    backward = TrainingStep._backward

    def fail(self: TrainingStep, images: torch.Tensor, targets: torch.Tensor) -> Any:
        if len(images) // self.accumulation_steps > images_at_once:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return backward(self, images, targets)

    monkeypatch.setattr(TrainingStep, "_backward", fail)


def test_a_lack_of_memory_is_said_in_one_line(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out_of_memory(monkeypatch, 1)
    config = composed("results")
    assert run(config) == "oom"
    text = (
        "out of memory with 2 images at once: give runtime.retry_oom=true, optim.accumulation_steps=4 or a "
        "smaller batch_size (CUDA out of memory. Tried to allocate 2.00 GiB.)"
    )
    assert recorded(config)["error"] == text
    assert text in [record.getMessage() for record in caplog.records]


def test_a_run_out_of_memory_goes_on_with_fewer_images_at_once(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    finer = composed("finer", *UNMIXED, "optim.accumulation_steps=4")
    assert run(finer) == "done"
    out_of_memory(monkeypatch, 1)
    config = composed("results", *UNMIXED, "runtime.retry_oom=true")
    assert run(config) == "done"
    record, expected = recorded(config), recorded(finer)
    assert record["provenance"]["accumulation_steps"] == 4
    assert record["config"]["optim"]["accumulation_steps"] == 2
    assert record["metrics"] == expected["metrics"]


def test_one_image_that_does_not_fit_ends_the_run(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory(monkeypatch, 0)
    config = composed("results", *UNMIXED, "runtime.retry_oom=true")
    assert run(config) == "oom"
    assert recorded(config)["error"].startswith("out of memory with 1 images at once: give ")


def test_a_failed_run_goes_on_and_a_diverged_one_begins_again(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = TrainingStep.__call__
    for error, restarts in ((OSError("a disk is full"), 1), (DivergedError("the loss is nan"), 0)):

        def fail(self: TrainingStep, images: Any, labels: Any, number: int, error: Exception = error) -> Any:
            if number == 5:
                raise error
            return take(self, images, labels, number)

        words = ("runtime.checkpoint_every_steps=2", f"seed={restarts}")
        config = composed("results", *words)
        with monkeypatch.context() as patched:
            patched.setattr(TrainingStep, "__call__", fail)
            assert run(config) in ("failed", "diverged")
        assert run(composed("results", *words, "runtime.retry=all")) == "done"
        assert recorded(config)["provenance"]["restarts"] == restarts
        assert outcome(config) == undisturbed(f"seed={restarts}")


def test_a_training_set_that_has_changed_is_not_gone_on_with(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("results", "runtime.checkpoint_every_steps=2")
    stopped_at(5, config, monkeypatch)
    training = experiment.load_inputs(config).data.train.dataset
    monkeypatch.setattr(type(training), "__len__", lambda self: 15)
    assert run(config) == "failed"
    assert (
        "the training set has 15 images, and had 16 when the checkpoint was written"
        in recorded(config)["error"]
    )


def test_a_corrupt_image_leaves_the_checkpoints_of_the_run(
    composed: Compose, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("results", "runtime.checkpoint_every_steps=2")
    stopped_at(5, config, monkeypatch)

    def corrupt(self: TrainingStep, images: Any, labels: Any, number: int) -> Any:
        raise CorruptImageError("a.png cannot be read as an image")

    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", corrupt)
        with pytest.raises(CorruptImageError):
            run(config)
    assert run(config) == "done"
    assert outcome(config) == undisturbed()
    assert recorded(config)["provenance"]["restarts"] == 1
