"""One configuration becomes one record, whatever happens on the way."""

import io
import json
import multiprocessing
import os
import platform
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from fork_server import PATIENCE_SECONDS, ForkServer
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from routerbench import experiment, measure, parts, records
from routerbench.compose import compose_sweep
from routerbench.data.image_files import CorruptImageError
from routerbench.identity import identity, run_id
from routerbench.ledger.attempts import claimed
from routerbench.ledger.ledger import read_ledger
from routerbench.moe.surgery import moe_layers
from routerbench.signals import KilledError, Warned
from routerbench.step import TrainingStep
from routerbench.weights import read_weights

# About half a second: 22 steps of a small ViT on the digits.
TINY = (
    "data=digits",
    "augment=crop_flip",
    "epochs=1",
    "+model.arguments.depth=2",
    "+model.arguments.embed_dim=16",
    "+model.arguments.num_heads=2",
    "num_experts=4",
    "runtime.wandb=disabled",
    "runtime.workers=0",
    "runtime.threads=1",
    "runtime.device=cpu",
    "runtime.backend=loop",  # nothing is measured
)
MEASURED = {"images_per_second", "train_seconds", "peak_memory_gib"}
COUNTED = {
    "flops_per_image",
    "flops_per_image_eval",
    "params_total",
    "params_active",
    "slots_per_token",
    "slots_per_token_eval",
}

Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A run sets the threads of its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def composed(tmp_path: Path, composed_once: Compose) -> Compose:
    """A function from further words to a tiny configuration with its records in a folder of the test."""

    def compose(*words: str, results: str = "results") -> DictConfig:
        return composed_once(tmp_path / results, *TINY, *words)

    return compose


def run(config: DictConfig) -> tuple[str, str]:
    """What became of the run, and what was shown."""
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    status = experiment.run(
        config, command="a command", repeat="the same", console=console, title="[1/1] run", warned=Warned()
    )
    return status, shown.getvalue()


def folder_of(config: DictConfig) -> Path:
    return records.run_folder(Path(config.runtime.results), run_id(identity(config)))


def record_of(config: DictConfig) -> dict[str, Any]:
    record = records.read_record(folder_of(config))
    assert record is not None
    return record


def rows_of(config: DictConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder_of(config) / "metrics.jsonl").read_text().splitlines()]


def standing(config: DictConfig) -> tuple[str, str | None]:
    found = read_ledger(Path(config.runtime.results)).standing(folder_of(config).name)
    return found.state, found.detail


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def never(*args: Any, **kwargs: Any) -> Any:
    pytest.fail("called")


PARTS = {
    "schema",
    "run_id",
    "status",
    "error",
    "metrics",
    "evaluation",
    "cost",
    "placement_blocks",
    "config",
    "provenance",
}


def test_a_run_leaves_a_whole_record(composed: Compose) -> None:
    config = composed("router=token_choice", "epochs=2")
    status, shown = run(config)
    folder, record, rows = folder_of(config), record_of(config), rows_of(config)
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "correct.npy",
        "routing.npz",
        "weights.safetensors",
        "record.json",
        "attempts",
    }
    assert status == record["status"] == "done"
    assert (record["schema"], record["run_id"], record["error"]) == (1, folder.name, None)
    assert (
        record["config"] == identity(config) == OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    )
    assert record["placement_blocks"] == [1]
    assert set(record["cost"]) == MEASURED | COUNTED
    # A small run may need no more than its process held before; tests/test_costs.py measures a large one.
    memory = record["cost"].pop("peak_memory_gib")
    assert memory >= 0
    assert all(value > 0 for value in record["cost"].values())
    versions = {"python", "routerbench", "torch", "timm", "hydra-core", "numpy"}
    assert set(record["provenance"]["versions"]) == versions
    origin = {"commit", "versions", "device", "command", "repeat", "started", "finished"}
    ran = {
        "attention",
        "backend",
        "accumulation_steps",
        "restarts",
        "parallel",
        "best_step",
        "corrupt_images",
        "weights_sha256",
    }
    assert {*record["provenance"]} == origin | ran
    assert (record["provenance"]["attention"], record["provenance"]["backend"]) == ("fused", "loop")
    assert (record["provenance"]["command"], record["provenance"]["repeat"]) == ("a command", "the same")
    assert set(record) == PARTS
    assert record["provenance"]["started"] < record["provenance"]["finished"]

    correct = np.load(folder / "correct.npy")
    assert correct.shape == (355,)
    assert record["metrics"]["test/top1"] == pytest.approx(correct.mean())
    with np.load(folder / "routing.npz") as maps:
        assert maps["blocks.1/share_by_class"].shape == (10, 4)
        dropped = maps["blocks.1/dropped_by_position"].mean()
    assert record["metrics"]["routing/blocks.1/dropped_fraction"] == pytest.approx(dropped, abs=1e-6)
    of_test = [{name: row[name] for name in record["metrics"]} for row in rows if "test/top1" in row]
    assert len(of_test) == 2
    assert of_test[-1] == record["metrics"]
    for name in ("test/top5", "test/balanced", "test/loss", "routing/blocks.1/dropped_fraction"):
        assert name in record["metrics"]
    assert [row["step"] for row in rows if "train/loss" in row] == [20, 22, 40, 44]
    assert {"train/task_loss", "train/importance_loss", "train/load_loss"} <= rows[0].keys()
    lines = [f"[1/1] run  epoch {epoch}/2  top-1 {m['test/top1']:.1%}" for epoch, m in enumerate(of_test, 1)]
    assert shown.splitlines() == lines


def test_a_dense_run_has_no_routing(composed: Compose) -> None:
    config = composed("router=dense")
    run(config)
    record = record_of(config)
    assert record["config"]["router"] == {"name": "dense"}
    assert record["placement_blocks"] == []
    assert record["cost"]["slots_per_token"] == 0
    assert record["cost"]["params_active"] == record["cost"]["params_total"]
    assert not [name for name in record["metrics"] if "routing" in name]


@pytest.mark.parametrize("router", ["token_choice", pytest.param("soft", marks=pytest.mark.slow), "random"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    composed: Compose, tmp_path: Path, router: str
) -> None:
    words = [f"router={router}", "runtime.log_every_steps=1", "model.drop_path_rate=0.2"]
    first = composed(*words)
    again = composed(*words, results="again")
    other = composed(*words, "seed=1")
    for config in (first, again, other):
        torch.randn(3)  # what was drawn before a run does not matter
        run(config)
    assert record_of(first)["metrics"] == record_of(again)["metrics"]
    assert rows_of(first) == rows_of(again)
    assert rows_of(first)[0] != rows_of(other)[0]
    assert record_of(first)["metrics"] != record_of(other)["metrics"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_and_evaluates(composed: Compose, precision: str) -> None:
    config = composed("router=token_choice", f"precision={precision}")
    assert run(config)[0] == "done"
    losses = [row["train/loss"] for row in rows_of(config) if "train/loss" in row]
    assert all(0 < loss < 4 for loss in losses)
    assert record_of(config)["metrics"]["test/loss"] < 4
    assert record_of(config)["provenance"]["attention"] == "plain"


def test_the_running_average_is_ranked_and_the_weights_stand_beside_it(composed: Compose) -> None:
    words = ("router=sigmoid_bias", "ema.decay=0.9", "mix.mixup_alpha=0.2", "optim.lr=0.01")
    config = composed(*words)
    assert run(config)[0] == "done"
    record, folder = record_of(config), folder_of(config)
    assert record["evaluation"] == {"weights": "ema"}
    metrics = record["metrics"]
    assert metrics["test/top1"] == pytest.approx(np.load(folder / "correct.npy").mean())
    assert {name for name in metrics if name.startswith("raw/")} == {
        f"raw/test/{name}" for name in ("top1", "top5", "balanced", "loss")
    }
    raw, ema = (read_weights(folder / f"{name}.safetensors") for name in ("weights", "weights_ema"))
    assert raw.keys() == ema.keys()
    different = {name for name in raw if not torch.equal(raw[name], ema[name])}
    experts = {f"blocks.1.mlp.experts.{name}" for name in ("w1", "b1", "w2", "b2")}
    assert {*experts, "blocks.1.mlp.router.bias", "head.weight"} <= different

    other = composed(*words, "ema.ranked=false")
    assert run(other)[0] == "done"
    assert record_of(other)["evaluation"] == {"weights": "raw"}
    of_raw = {name: metrics[f"raw/{name}"] for name in ("test/top1", "test/loss")}
    of_ema = {f"ema/{name}": metrics[name] for name in ("test/top1", "test/loss")}
    assert of_raw.items() <= record_of(other)["metrics"].items()
    assert of_ema.items() <= record_of(other)["metrics"].items()


def test_an_average_changes_nothing_of_the_training(composed: Compose) -> None:
    plain, averaged = composed("router=token_choice"), composed("router=token_choice", "ema.decay=0.99")
    for config in (plain, averaged):
        run(config)
    expected, found = record_of(plain), record_of(averaged)
    assert expected["evaluation"] == {"weights": "raw"}
    assert found["metrics"]["raw/test/loss"] == expected["metrics"]["test/loss"]
    assert found["metrics"]["raw/test/top1"] == expected["metrics"]["test/top1"]


@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_mean"])
def test_sigmoid_losses_train_and_are_that_of_the_test(composed: Compose, loss: str) -> None:
    config = composed("router=soft", f"loss.name={loss}", "loss.label_smoothing=0.1", "mix.cutmix_alpha=1")
    assert run(config)[0] == "done"
    at_random = 0.7 * (10 if loss == "sigmoid" else 1)
    assert 0 < record_of(config)["metrics"]["test/loss"] < at_random


@pytest.mark.parametrize(
    ("model", "router"),
    [
        ("vit", "sigmoid_bias"),
        ("convnext", "token_choice"),
        pytest.param("vit", "token_choice", marks=pytest.mark.slow),
        pytest.param("convnext", "sigmoid_bias", marks=pytest.mark.slow),
    ],
)
def test_checkpointed_activations_and_channels_last_train_the_same(
    composed: Compose, tmp_path: Path, model: str, router: str
) -> None:
    words = [f"router={router}", "runtime.log_every_steps=1"]
    if model == "convnext":
        without = (f"~model.arguments.{name}" for name in ("depth", "embed_dim", "num_heads"))
        size = ("+model.arguments.depths=[1,1,1,1]", "+model.arguments.dims=[8,8,16,16]")
        words += ["model=pocket_convnext", "placement=stage", "runtime.backend=bmm", *without, *size]
    switched = [f"runtime.{name}=true" for name in ("activation_checkpointing", "channels_last")]
    plain = composed(*words)
    changed = composed(*words, *switched, results="changed")
    for config in (plain, changed):
        assert run(config)[0] == "done"
    losses = [
        [row["train/loss"] for row in rows_of(config) if "train/loss" in row] for config in (plain, changed)
    ]
    assert losses[1][:4] == pytest.approx(losses[0][:4], rel=1e-4)


def test_activation_checkpointing_is_refused_where_timm_has_none(composed: Compose) -> None:
    config = compose_sweep(
        ["model=pocket_convnext_iso", "runtime.activation_checkpointing=true"], None, False
    ).configs[0]
    with pytest.raises(
        ValueError, match=r"^runtime\.activation_checkpointing=true is not for .*: say false$"
    ):
        parts.verify(config)


def test_an_interrupted_run_goes_on_with_its_average_and_its_mixing(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["router=token_choice", "ema.decay=0.9", "mix.mixup_alpha=0.2", "mix.cutmix_alpha=1"]
    words += ["runtime.checkpoint_every_steps=9", "optim.name=lamb", "optim.layer_decay=0.7", "epochs=2"]
    words += ["runtime.channels_last=true", "optim.accumulation_steps=2", "mix.off_epoch=1"]
    whole, cut = composed(*words), composed(*words, results="cut")
    assert run(whole)[0] == "done"
    take = TrainingStep.__call__

    def interrupt(step: TrainingStep, images: Tensor, labels: Tensor, number: int) -> Any:
        if number == 31:
            raise KeyboardInterrupt
        return take(step, images, labels, number)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(cut)
    assert run(cut)[0] == "done"
    assert record_of(cut)["provenance"]["restarts"] == 1
    assert record_of(cut)["metrics"] == record_of(whole)["metrics"]
    for name in ("weights.safetensors", "weights_ema.safetensors"):
        assert (folder_of(cut) / name).read_bytes() == (folder_of(whole) / name).read_bytes()


@pytest.mark.parametrize(("threads", "said"), [(2, "2 threads"), (1, "1 thread")])
def test_the_record_says_how_many_threads_the_run_had(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, threads: int, said: str
) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("stop")

    monkeypatch.setattr(measure, "train", stop)
    torch.set_num_threads(3 - threads)  # of what ran before
    config = composed("router=dense", f"runtime.threads={threads}")
    assert run(config)[0] == "failed"
    assert record_of(config)["provenance"]["device"].endswith(f", {said}")


def test_groups_of_images_are_trained_and_all_test_images_count(composed: Compose) -> None:
    config = composed("router=expert_choice", "group=8")  # 355 test images: 44 groups, and one of three
    assert run(config)[0] == "done"
    assert len(np.load(folder_of(config) / "correct.npy")) == 355


def test_for_one_seed_all_routers_start_from_one_backbone_and_draw_the_same(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[dict[str, Tensor], Tensor]] = []

    def stop(step: TrainingStep, *args: Any, **kwargs: Any) -> None:
        started.append((dict(step.model.state_dict()), torch.get_rng_state()))
        raise RuntimeError("stop")

    monkeypatch.setattr(measure, "train", stop)
    for router in ("dense", "expert_choice", "soft", "random"):
        assert run(composed(f"router={router}"))[0] == "failed"
    dense, draws = started[0]
    for state, drawn in started[1:]:
        shared = dense.keys() & state.keys()
        assert dense.keys() - shared == {
            f"blocks.1.mlp.fc{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")
        }
        assert all(torch.equal(dense[name], state[name]) for name in shared)
        for expert in state["blocks.1.mlp.experts.w1"]:
            assert torch.equal(expert.T, dense["blocks.1.mlp.fc1.weight"])
        assert torch.equal(drawn, draws)


def test_a_run_that_is_done_is_not_run_again(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed()
    run(config)
    before = contents(folder_of(config))
    monkeypatch.setattr(experiment, "load_inputs", never)
    for again in (config, composed("runtime.retry=all"), composed("runtime.threads=2")):
        assert run(again) == ("done", "[1/1] run  done before\n")
    assert contents(folder_of(config)) == before


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RuntimeError("boom"), "failed", "RuntimeError: boom"),
        (ValueError("boom"), "failed", "ValueError: boom"),
        (torch.OutOfMemoryError("no memory for 3 GiB"), "oom", "(no memory for 3 GiB)"),
    ],
)
def test_a_run_that_fails_is_an_outcome_until_a_retry(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, text: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(measure, "train", fail)
        assert run(composed())[0] == status
    record = record_of(composed())
    assert record["error"].strip().endswith(text)
    assert (record["status"], record["metrics"], record["cost"]) == (status, {}, {})
    assert (record["config"], record["provenance"]["command"]) == (identity(composed()), "a command")
    assert run(composed()) == (status, f"[1/1] run  {status} before\n")
    other = "oom" if status == "failed" else "failed"
    assert run(composed(f"runtime.retry={other}"))[0] == status
    assert run(composed(f"runtime.retry={status}"))[0] == "done"
    assert record_of(composed())["error"] is None
    kept = folder_of(composed()) / f"record.{status}-1.json"
    assert json.loads(kept.read_text()) == record


def test_a_run_that_diverges_says_at_which_step(composed: Compose) -> None:
    # One step of 1e30 makes parameters whose products are no numbers.
    config = composed("router=dense", "optim.lr=1e30", "optim.warmup_epochs=0", "optim.clip_grad=null")
    assert run(config)[0] == "diverged"
    record = record_of(config)
    assert record["error"] == (
        "the loss is nan at step 2: blocks.0.norm1 (LayerNorm) is the first layer whose output is not finite"
    )
    assert (record["metrics"], record["cost"]) == ({}, {})


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_leaves_no_record_and_runs_again(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(measure, "evaluate", interrupt)
        with pytest.raises(error):
            run(composed())
    assert records.read_record(folder_of(composed())) is None
    steps = len(rows_of(composed()))
    assert steps > 0
    assert run(composed())[0] == "done"
    # The rows of the run that was cut off are gone.
    assert [row["step"] for row in rows_of(composed())] == [20, 22, 22]


def test_a_killed_process_leaves_no_record_and_the_run_can_be_done_by_another(
    composed: Compose, tmp_path: Path, fork_server: ForkServer
) -> None:
    config = composed("epochs=3", "runtime.log_every_steps=1")
    words = [*TINY, f"runtime.results={tmp_path}/results", "epochs=3", "runtime.log_every_steps=1"]
    process = fork_server.start("-m", "routerbench", "train", *words)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder_of(config) / "metrics.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # a fast machine would be done before it is killed
    status, shown = run(config)
    assert status == "running"
    assert shown.startswith(f"[1/1] run  is run by process {process.pid} on {platform.node()}, heard of ")
    process.kill()
    process.wait()
    assert records.read_record(folder_of(config)) is None
    assert run(config)[0] == "done"


def test_a_run_that_another_process_has_is_left_alone(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed()
    monkeypatch.setattr(experiment, "load_inputs", never)
    with claimed(folder_of(config)):
        status, shown = run(config)
        assert status == "running"
        owner = f"process {os.getpid()} on {platform.node()}"
        assert re.fullmatch(rf"\[1/1\] run  is run by {owner}, heard of \d+ s ago\n", shown)
        assert [path.name for path in folder_of(config).iterdir()] == ["attempts"]


def test_a_run_that_another_process_has_just_done_is_not_run_again(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed()
    load_inputs = experiment.load_inputs

    def slow(config: DictConfig) -> measure.Inputs:
        folder = folder_of(config)
        folder.mkdir(parents=True)
        records.write_record(folder, {"run_id": folder.name, "status": "done", "config": identity(config)})
        return load_inputs(config)

    monkeypatch.setattr(experiment, "load_inputs", slow)
    monkeypatch.setattr(measure, "train", never)
    assert run(config) == ("done", "[1/1] run  done before\n")


def test_an_error_of_wandb_ends_no_run(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**settings: Any) -> None:
        raise ConnectionError("no net")

    monkeypatch.setattr(wandb, "init", fail)
    config = composed("runtime.wandb=online")
    assert run(config)[0] == "done"
    assert "W&B: ConnectionError: no net; the run goes on, and its record is whole" in caplog.messages


def test_a_disk_that_is_full_at_the_end_leaves_no_record(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, record: dict[str, Any]) -> None:
        raise records.UnwritableError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(records, "write_record", full)
        with pytest.raises(records.UnwritableError, match="no space left"):
            run(composed())
    assert records.read_record(folder_of(composed())) is None
    assert standing(composed()) == ("interrupted", "no space left")
    assert run(composed())[0] == "done"


def test_a_disk_that_is_full_on_the_way_is_no_outcome_of_the_run(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("runtime.log_every_steps=1", "epochs=2", "runtime.checkpoint_every_steps=5")
    append = records.append_row

    def full(at: int, path: Path, row: dict[str, Any]) -> None:
        append(path, row)
        if row["step"] == at:
            with path.open("a") as file:
                file.write('{"step": ')
            raise records.UnwritableError(f"{path} cannot be written: No space left on device")

    for at in (3, 17):  # before the first checkpoint, and after it
        with monkeypatch.context() as patched:
            patched.setattr(records, "append_row", partial(full, at))
            with pytest.raises(records.UnwritableError):
                run(config)
        text = f"{folder_of(config)}/metrics.jsonl cannot be written: No space left on device"
        assert standing(config) == ("interrupted", text)
    assert run(config)[0] == "done"
    steps = [row["step"] for row in rows_of(config) if "train/loss" in row]
    assert steps == list(range(1, 45))
    assert standing(config) == ("done", None)


def test_an_error_of_a_file_that_is_read_is_an_outcome(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*args: Any, **kwargs: Any) -> None:
        raise OSError("a disk is broken")

    monkeypatch.setattr(measure, "train", unreadable)
    assert run(composed())[0] == "failed"


def test_a_damaged_record_is_set_aside_and_the_run_goes_on(
    composed: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    config = composed("router=dense")
    folder = folder_of(config)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{")
    assert run(config)[0] == "done"
    assert (folder / "record.damaged-1.json").read_text() == "{"
    assert (
        f"{folder}/record.json is no record of a run: it is set aside when the run is started again, as "
        "record.damaged-1.json"
    ) in caplog.messages
    assert standing(config) == ("done", None)


def test_a_run_that_was_taken_over_leaves_without_a_record(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("runtime.log_every_steps=1")
    attempts = folder_of(config) / "attempts"
    append = records.append_row

    def suspended(path: Path, row: dict[str, Any]) -> None:
        append(path, row)
        if row["step"] == 3:
            (attempts / "0002.json").write_text("")

    monkeypatch.setattr(records, "append_row", suspended)
    status, shown = run(config)
    assert status == "running"
    assert shown.startswith(f"[1/1] run  the run was taken from process {os.getpid()} on ")
    assert records.read_record(folder_of(config)) is None
    assert [row["step"] for row in rows_of(config)] == [1, 2, 3]


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of four training and two test images."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


def of_folder(composed: Compose, image_folder: Path) -> DictConfig:
    words = ("augment=none", "batch_size=4", "data.image_size=32")
    return composed("data=folder", f"data.path={image_folder}", *words)


def test_image_files_are_trained_on(composed: Compose, image_folder: Path) -> None:
    config = of_folder(composed, image_folder)
    parts.verify(config)
    assert run(config)[0] == "done"
    assert len(np.load(folder_of(config) / "correct.npy")) == 4


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_worker_interrupts_the_run_and_a_signal_to_it_does_not(
    composed: Compose, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = of_folder(composed, image_folder)
    config.runtime.workers, config.epochs = 1, 2
    append = records.append_row

    def send(number: int, path: Path, row: dict[str, Any]) -> None:
        append(path, row)
        for worker in multiprocessing.active_children():
            assert os.getpgid(worker.pid or 0) != os.getpgid(0)
            os.kill(worker.pid or 0, number)
            if number == signal.SIGKILL:
                worker.join()

    with monkeypatch.context() as patched:
        patched.setattr(records, "append_row", partial(send, signal.SIGKILL))
        with pytest.raises(KilledError, match=r"^DataLoader worker \(pid") as caught:
            run(config)
    assert standing(config) == ("interrupted", str(caught.value))
    monkeypatch.setattr(records, "append_row", partial(send, signal.SIGUSR1))
    assert run(config)[0] == "done"


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_corrupt_image_is_named_and_leaves_no_record(
    composed: Compose, image_folder: Path, part: str
) -> None:
    broken = image_folder / part / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    config = of_folder(composed, image_folder)
    with pytest.raises(CorruptImageError) as caught:
        run(config)
    assert str(caught.value).startswith(f"{broken} cannot be read as an image (")
    assert str(caught.value).endswith("): replace or remove it")
    assert records.read_record(folder_of(config)) is None
    assert standing(config) == ("interrupted", str(caught.value))


def test_data_that_is_missing_is_refused_before_anything_is_written(
    composed: Compose, tmp_path: Path
) -> None:
    config = composed("data=folder", f"data.path={tmp_path}/none", "augment=none")
    with pytest.raises(ValueError, match="is not a folder"):
        run(config)
    assert not (tmp_path / "results").exists()


class Started(Exception):  # noqa: N818
    """Training would begin now."""


def started(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The model that a run would train."""
    models = []

    def stop(step: TrainingStep, *args: Any, **kwargs: Any) -> None:
        models.append(step.model.eval())
        raise Started

    with monkeypatch.context() as patched:
        patched.setattr(measure, "train", stop)
        patched.setattr(experiment.logger, "error", lambda *words: None)
        assert run(config)[0] == "failed"
    (model,) = models
    return model


def test_a_run_leaves_its_weights_from_which_another_starts(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = composed("router=dense", "optim.lr=0.01")
    assert run(dense)[0] == "done"
    folder, images = folder_of(dense), torch.randn(4, 3, 32, 32)
    weights = read_weights(folder)
    backbone = parts.build_model(dense, num_classes=10)
    assert not torch.equal(weights["head.weight"], backbone.state_dict()["head.weight"])
    backbone.load_state_dict(weights)
    with torch.no_grad():
        expected = backbone.eval()(images)
        again = started(composed("router=dense", f"model.weights={folder}"), monkeypatch)
        assert torch.equal(again(images), expected)
        for router in (
            ["router=token_choice", "capacity_factor=4"],
            ["router=token_choice", "router.top_k=2", "capacity_factor=2"],
            ["router=expert_choice", "capacity_factor=4"],
        ):
            words = [*router, "router.normalize_combine=true", "placement=[0,1]", "expert_init=upcycle"]
            config = composed(*words, f"model.weights={folder}/weights.safetensors")
            model = started(config, monkeypatch)
            assert len(moe_layers(model)) == 2
            torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_an_upcycled_run_is_trained_and_leaves_weights_that_a_dense_one_does_not_take(
    composed: Compose,
) -> None:
    dense = composed("router=dense")
    run(dense)
    words = ["expert_init=upcycle", f"model.weights={folder_of(dense)}", "router=hash"]
    upcycled = composed(*words, "runtime.backend=bmm", "expert_dropout=0.1", "optim.expert_weight_decay=0.1")
    assert run(upcycled)[0] == "done"
    assert record_of(upcycled)["config"]["model"]["weights"] == str(folder_of(dense))
    other = composed("router=dense", f"model.weights={folder_of(upcycled)}")
    message = (
        f"model.weights={folder_of(upcycled)} does not fit model.name=pocket_vit: it has experts "
        r"\(blocks\.1\.mlp\.experts\.b1\), so give the weights of a dense run"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(other)
    assert not folder_of(other).exists()


def test_weights_that_are_missing_or_of_other_classes_are_refused_before_anything_is_written(
    composed: Compose, tmp_path: Path
) -> None:
    def refused(config: DictConfig) -> str:
        parts.verify(config)  # does not look for them
        with pytest.raises(ValueError, match=r"^model\.weights=") as caught:
            run(config)
        assert not folder_of(config).exists()
        return str(caught.value)

    config = composed("router=dense", f"model.weights={tmp_path}/no.pth")
    assert refused(config).startswith(f"model.weights={tmp_path}/no.pth does not exist: give pretrained, ")
    torch.save(parts.build_model(config, num_classes=7).state_dict(), tmp_path / "seven.pth")
    assert refused(composed("router=dense", f"model.weights={tmp_path}/seven.pth")) == (
        f"model.weights={tmp_path}/seven.pth does not fit model.name=pocket_vit: its head.weight is of shape "
        "(7, 16), and the model's of (10, 16); model.new_head=true starts a new one"
    )
    assert refused(composed("router=dense", "model.weights=pretrained")) == (
        "model.weights=pretrained fails for model.name=pocket_vit: No pretrained weights exist for "
        "pocket_vit. Use `pretrained=False` for random init."
    )


@pytest.mark.parametrize("num_classes", [10, 7])
def test_pretrained_weights_are_those_of_timm(num_classes: int, composed: Compose, tmp_path: Path) -> None:
    # timm would download from the address in its configuration; here that is a file.
    overlay = f"+model.arguments.pretrained_cfg_overlay={{file:{tmp_path}/timm.pth,classifier:head}}"
    config = composed("router=dense", "model.weights=pretrained", overlay)
    source = parts.build_model(config, num_classes=10).state_dict()
    torch.save(source, tmp_path / "timm.pth")
    weights = parts.load_weights(config, num_classes)
    assert weights is not None
    same = {name for name in source if torch.equal(source[name], weights[name])}
    new = set() if num_classes == 10 else {"head.weight", "head.bias"}
    assert same == source.keys() - new
    assert weights["head.weight"].shape == (num_classes, 16)
    again = parts.load_weights(config, num_classes)
    assert again is not None
    assert torch.equal(weights["head.weight"], again["head.weight"])  # a new classifier is seeded


def test_why_pretrained_weights_fail_is_said_in_one_line(composed: Compose, tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(3, 3)}, tmp_path / "timm.pth")
    overlay = f"+model.arguments.pretrained_cfg_overlay.file={tmp_path}/timm.pth"
    config = composed("router=dense", "model.weights=pretrained", overlay)
    message = (
        r"model\.weights=pretrained fails for model\.name=pocket_vit: Error\(s\) in loading state_dict for "
        r"VisionTransformer: Missing key\(s\) in state_dict: .*"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        parts.load_weights(config, num_classes=10)
